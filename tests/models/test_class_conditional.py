from __future__ import annotations

import json

import classy
import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from conceptbench.core.errors import MissingWeightsError, UserInputError
from conceptbench.core.schemas import Sampler
from conceptbench.models.base import Draws
from conceptbench.models.class_pipeline import ClassPipeline
from conceptbench.models.conditions import Condition
from conceptbench.models.cvae import negative_elbo
from conceptbench.models.families import component_hashes, load_base

SAMPLER = Sampler(steps=4, guidance=3.0)
PLAIN = Sampler(steps=1, guidance=1.0)


@pytest.fixture(params=["cvae", "ddpm"])
def family(request):
    return request.param


def test_classes_are_one_hot_rows_and_no_class_is_zeros(family):
    base = classy.base(family)
    assert base.classes == classy.CLASSES and base.info.family == family and base.info.size == 8
    assert base.encode(["2", "", "0"]).hidden[:, 0].tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    with pytest.raises(UserInputError, match=r"unknown class of tiny-.* '3'"):
        base.encode(["1", "3"])


def test_negative_elbo_is_that_of_torchs_distributions():
    g = torch.Generator().manual_seed(0)
    x, logits = torch.rand(5, 1, 4, 4, generator=g), 3 * torch.randn(5, 1, 4, 4, generator=g)
    mean, log_variance = torch.randn(5, 3, generator=g), torch.randn(5, 3, generator=g)
    likelihood = Bernoulli(logits=logits, validate_args=False).log_prob(x).flatten(1).sum(1)
    divergence = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(negative_elbo(x, logits, mean, log_variance), divergence - likelihood, rtol=1e-5)


def test_objective_of_an_autoencoder_by_hand():
    """The code is drawn once: mean + deviation * noise; class beside pixels and beside the code."""
    base = classy.base("cvae")
    x, noise = torch.rand(3, 1, 8, 8), torch.randn(3, 4)
    hot = torch.eye(3)
    found = base.objective(x, base.encode(["0", "1", "2"]), Draws(noise, torch.zeros(3, dtype=torch.long)))
    mean, log_variance = base.network.encoder(torch.cat([x.flatten(1), hot], 1)).split(4, 1)
    logits = base.network.decoder(torch.cat([mean + log_variance.exp().sqrt() * noise, hot], 1))
    expected = negative_elbo(x, logits.view(3, 1, 8, 8), mean, log_variance)
    assert torch.allclose(found, expected, rtol=1e-5)
    assert base.timesteps == 1 and base.draws(x, torch.Generator()).noise.shape == (3, 4)


def test_objective_of_a_ddpm_is_summed_over_pixels_and_labels_reach_the_network():
    base = classy.base("ddpm", channels=3)
    x, g = torch.randn(3, 3, 8, 8), torch.Generator().manual_seed(0)
    draws = base.draws(x, g)
    found = base.objective(x, base.encode(["0", "2", ""]), draws)
    a = base.alphas[draws.t].view(-1, 1, 1, 1)
    predicted = base.network(a.sqrt() * x + (1 - a).sqrt() * draws.noise, draws.t, class_labels=torch.tensor([0, 2, 3])).sample
    assert torch.allclose(found, ((predicted - draws.noise) ** 2).sum((1, 2, 3)), rtol=1e-5)
    given = base.draws(x, g, torch.tensor([5, 6, 7]))
    assert given.t.tolist() == [5, 6, 7] and base.timesteps == 1000


def test_guidance_is_towards_the_class_and_away_from_none():
    """One DDIM step from pure noise, by hand: guidance 3 is w = 2 of (1 + w) eps(c) - w eps(none)."""
    base = classy.base("ddpm")
    image = base.sample([Condition("1")], [4], Sampler(steps=1, guidance=3.0))
    x, t = torch.randn((1, 1, 8, 8), generator=torch.Generator().manual_seed(4)), torch.tensor([1])
    with torch.no_grad():
        own, none = (base.network(x, t, class_labels=torch.tensor([k])).sample for k in (1, 3))
    eps = 3 * own - 2 * none
    a = base.alphas[1]
    x0 = ((x - (1 - a).sqrt() * eps) / a.sqrt()).clamp(-1, 1)
    expected = ((x0 / 2 + 0.5) * 255).round()[0, 0]
    assert np.abs(image[0, :, :, 0].astype(float) - expected.numpy()).max() <= 1
    assert (image[..., 0] == image[..., 2]).all()


@pytest.mark.parametrize("sampler", [SAMPLER, SAMPLER.model_copy(update={"scheduler": "ddpm"})])
def test_an_image_depends_on_its_condition_and_seed_only(family, sampler):
    base = classy.base(family)
    many = base.sample([Condition(c) for c in ("0", "1", "2", "0")], [2, 4, 6, 8], sampler)
    alone = base.sample([Condition("2")], [6], sampler)
    assert many.shape == (4, 8, 8, 3) and many.dtype == np.uint8
    assert (many[2] == alone[0]).all() and not (many[0] == many[3]).all()
    if family == "cvae":
        assert base.evaluations == 5


def test_pixels_there_and_back(family):
    for channels in (1, 3):
        base = classy.base(family, channels=channels)
        images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, channels), dtype=np.uint8).repeat(3 // channels, -1)
        x = base.latents_of(images)
        assert x.shape == (2, channels, 8, 8) == (2, *base.latent_shape(None)) and float(x.max()) <= 1
        assert float(x.min()) < -0.9 if family == "ddpm" else float(x.min()) >= 0
        assert np.array_equal(base.decode(x), images)


def test_a_folder_is_loaded_as_it_was(family, tmp_path):
    base = classy.base(family)
    loaded = load_base(str(classy.folder(family, tmp_path / "m")))
    assert loaded.classes == base.classes and loaded.info.family == family and loaded.info.size == 8
    assert loaded.info.components == load_base(str(tmp_path / "m")).info.components
    one, other = (b.sample([Condition("1")], [2], SAMPLER) for b in (base, loaded))
    assert np.array_equal(one, other)
    named = {"cvae": classy.cvae, "ddpm": classy.ddpm}[family](classes=("0", "1", "two"))
    assert component_hashes(named) != base.info.components == component_hashes(base.pipeline)  # other names, another model


def test_damaged_folders(tmp_path):
    path = classy.folder("cvae", tmp_path / "m")
    (path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(MissingWeightsError, match="cannot load"):
        load_base(str(path))
    index = json.loads((path / "model_index.json").read_text())
    (path / "model_index.json").write_text(json.dumps({**index, "family": "gan"}))
    with pytest.raises(UserInputError, match="names no family of class-conditional models"):
        ClassPipeline.from_pretrained(path)


def test_what_an_autoencoder_has_not_says_so():
    base = classy.base("cvae")
    x, t = torch.rand(1, 1, 8, 8), torch.tensor([1])
    for call in (
        lambda: base.predict(x, t, base.encode(["0"])),
        lambda: base.add_noise(x, x, t),
        lambda: base.alphas,
        lambda: base.tokenize("0"),
        lambda: base.sample([Condition("0")], [2], PLAIN, until=0),
    ):
        with pytest.raises(UserInputError, match="tiny-cvae, of family 'cvae', has no"):
            call()
    with pytest.raises(UserInputError, match="draws 8 pixels a side, not 16"):
        base.sample([Condition("0")], [2], Sampler(size=16))
