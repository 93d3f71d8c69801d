from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from conceptbench.core.errors import MissingWeightsError, UserInputError
from conceptbench.core.schemas import Sampler
from conceptbench.models.conditions import Condition
from conceptbench.models.families import base_from_pipeline, load_base, load_pipeline
from conceptbench.models.groups import GROUPS
from conceptbench.models.sampling import denoise
from conceptbench.models.schedulers import SCHEDULERS
from conceptbench.models.stable_diffusion import find_phrase

SAMPLER = Sampler(steps=3, guidance=3.0)
PROMPTS = ["ab c", "a", "b a c", "cc", "d"]


def conditions(prompts=PROMPTS):
    return [Condition(p) for p in prompts]


def test_family_and_hashes_are_recorded(base):
    assert base.info.family in tiny.FAMILIES
    assert {"unet", "vae", "text_encoder", "tokenizer", "scheduler"} <= set(base.info.components)
    assert len(set(base.info.components.values())) == len(base.info.components)


def test_images_equal_the_stock_pipeline(base, folders):
    """Same weights, same noise, one prompt at a time through diffusers' own pipeline."""
    ours = base.sample(conditions(), list(range(5)), SAMPLER)
    stock = load_pipeline(str(folders[base.info.family]))
    for i, prompt in enumerate(PROMPTS):
        latents = torch.randn((1, *base.latent_shape(None)), generator=torch.Generator().manual_seed(i))
        theirs = stock(prompt, latents=latents, num_inference_steps=3, guidance_scale=3.0, output_type="np", height=16, width=16).images[0]
        assert np.abs(ours[i].astype(int) - (theirs * 255).round().astype(int)).max() <= 1


def test_sdxl_follows_the_stock_pipeline_at_another_size_and_with_a_negative_prompt(folders):
    base, stock = load_base(str(folders["sdxl"])), load_pipeline(str(folders["sdxl"]))
    assert float(base.encode([""]).hidden.abs().sum()) > 0  # zeros are for the unconditional half only
    assert float(base.encode_unconditional([""]).hidden.abs().sum()) == 0
    for negative in ("", "b a"):
        sampler = SAMPLER.model_copy(update={"size": 32})
        ours = base.sample([Condition("ab c", negative)], [5], sampler)[0]
        latents = torch.randn((1, *base.latent_shape(32)), generator=torch.Generator().manual_seed(5))
        extra = {"negative_prompt": negative} if negative else {}
        theirs = stock("ab c", latents=latents, num_inference_steps=3, guidance_scale=3.0, output_type="np", height=32, width=32, **extra).images[0]
        assert np.abs(ours.astype(int) - (theirs * 255).round().astype(int)).max() <= 1


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_images_are_the_same_bytes_in_any_batch(base, batch):
    prompts, seeds = [PROMPTS[i % 5] for i in range(16)], list(range(16))
    whole = base.sample(conditions(prompts), seeds, SAMPLER)
    parts = [base.sample(conditions(prompts[i : i + batch]), seeds[i : i + batch], SAMPLER) for i in range(0, 16, batch)]
    assert np.array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_samples_and_repeats(sd1, name):
    sampler = Sampler(scheduler=name, steps=4, guidance=2.0)
    first, second = (sd1.sample(conditions()[:2], [1, 2], sampler) for _ in range(2))
    assert np.array_equal(first, second) and first.std() > 0


def test_until_stops_on_the_way(sd1):
    noise = sd1.sample(conditions()[:1], [4], SAMPLER, until=0)
    assert torch.equal(noise, sd1.initial_noise([4]))
    assert np.array_equal(sd1.decode(sd1.sample(conditions()[:1], [4], SAMPLER, until=3)), sd1.sample(conditions()[:1], [4], SAMPLER))


def test_prediction_kinds_agree(base):
    x0, noise, t = torch.randn(4, *base.latent_shape(None)), torch.randn(4, *base.latent_shape(None)), torch.tensor([5, 300, 700, 990])
    x_t = base.add_noise(x0, noise, t)
    encoded = base.encode(PROMPTS[:4])
    eps, clean = base.predict(x_t, t, encoded), base.predict(x_t, t, encoded, to="x0")
    a = base.alphas[t].view(-1, 1, 1, 1)
    assert torch.allclose(a.sqrt() * clean + (1 - a).sqrt() * eps, x_t, atol=1e-4)


def test_v_prediction_is_converted(folders):
    v = load_base(str(folders["sd2"]))
    assert v.train_scheduler.config.prediction_type == "v_prediction"
    x0, noise, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([100, 800])
    a = v.alphas[t].view(-1, 1, 1, 1)
    native = a.sqrt() * noise - (1 - a).sqrt() * x0
    x_t = v.add_noise(x0, noise, t)
    assert torch.allclose(v.convert(native, x_t, t, "eps"), noise, atol=1e-5)
    assert torch.allclose(v.convert(native, x_t, t, "x0"), x0, atol=1e-5)


def test_loss_is_per_example_and_repeats(base):
    x, encoded = torch.randn(3, *base.latent_shape(None)), base.encode(PROMPTS[:3])
    first, second = (base.loss(x, encoded, torch.Generator().manual_seed(0)) for _ in range(2))
    assert first.shape == (3,) and torch.equal(first, second) and (first > 0).all()


def test_parameter_groups(base):
    names = {g: set(base.parameters(g)) for g in GROUPS}
    assert names["kv"] < names["xattn"] < names["attn"] < names["full"]
    assert not names["xattn"] & names["noxattn"] and not names["xattn"] & names["selfattn"]
    assert not any(n.startswith(("time_embedding", "conv_out", "conv_norm_out")) for n in names["noxattn"])
    assert any("time_emb_proj" in n for n in names["noxattn"])
    with pytest.raises(UserInputError, match="did you mean 'xattn'"):
        base.parameters("xatn")


def test_attention_sites(base):
    mid = base.attention_sites("mid")
    assert len(base.attention_sites()) == len(mid) + len(base.attention_sites("down")) + len(base.attention_sites("up"))
    assert base.attention_sites("mid+up") and {s.place for s in mid} == {"mid"}


def test_token_positions(sd1):
    text = "xy ab xy"
    positions = sd1.token_positions(text, "xy")
    ids = sd1.tokenize(text)
    assert [ids[p] for p in positions] == sd1.pipeline.tokenizer("xy", add_special_tokens=False).input_ids
    assert positions[0] > len(sd1.token_positions(text, "ab"))  # the last occurrence
    assert sd1.token_positions(text, "zz") == []
    assert find_phrase([1, 2, 1, 2, 3], [1, 2]) == [2, 3]


def test_evaluations_are_counted_by_rows(sd1):
    before = sd1.evaluations
    sd1.sample(conditions()[:4], [0, 1, 2, 3], SAMPLER)
    assert sd1.evaluations - before == 4 * 2 * 3


def test_distinct_prompts_are_encoded_once(sd1, monkeypatch):
    calls = []
    real = sd1._encode_texts
    monkeypatch.setattr(sd1, "_encode_texts", lambda texts: calls.append(set(texts)) or real(texts))
    sd1.encode(["a", "b", "a"])
    sd1.encode(["b", "c"])
    assert calls == [{"a", "b"}, {"c"}]


def test_safety_checker_is_taken_off_and_noted(sd1):
    made = tiny.pipeline("sd1")
    made.safety_checker = torch.nn.Linear(1, 1)
    wrapped = base_from_pipeline(made, "x")
    assert wrapped.pipeline.safety_checker is None and "safety checker is off" in wrapped.info.notes[0]


def test_unknown_base_is_an_input_error():
    with pytest.raises(UserInputError, match="did you mean 'mini'"):
        load_base("minni")


def test_hub_id_that_is_not_here(tmp_path):
    with pytest.raises(MissingWeightsError, match="nobody/nothing"):
        load_base("nobody/nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingWeightsError, match="cannot load the base"):
        load_base(str(tmp_path / "empty"))


def test_trajectories_do_not_depend_on_the_number_of_threads(sd1):
    """Erasers train with one thread and sample with all: the bytes are the same."""
    conditions, seeds, sampler = [Condition("ab"), Condition("cd")], [2, 4], Sampler(steps=3, guidance=3.0)
    one = denoise(sd1, conditions, seeds, sampler)
    sd1.sampling_threads = 2
    try:
        two = denoise(sd1, conditions, seeds, sampler)
    finally:
        sd1.sampling_threads = None
    assert torch.equal(one, two) and torch.get_num_threads() == 1


def test_the_autoencoder_never_sees_more_than_a_block(sd1, monkeypatch):
    """Also where rows need no padding: thousands of reference images must not go through it at once."""
    monkeypatch.setattr(type(sd1), "exact_rows", None)
    seen = []
    encode, decode = sd1.vae.encode, sd1.vae.decode
    monkeypatch.setattr(sd1.vae, "encode", lambda x: (seen.append(len(x)), encode(x))[1])
    monkeypatch.setattr(sd1.vae, "decode", lambda z: (seen.append(len(z)), decode(z))[1])
    images = np.random.default_rng(0).integers(0, 256, (19, 16, 16, 3), np.uint8)
    latents = sd1.latents_of(images)
    sd1.decode(latents)
    assert seen == [16, 3, 16, 3]
    assert torch.allclose(latents[17:], sd1.latents_of(images[17:]), atol=1e-5)


def test_a_runtime_that_fails_on_leaving_leaves_the_base_as_it_was(sd1):
    from contextlib import contextmanager

    from conceptbench.core.registry import RUNTIMES
    from conceptbench.models.erasure import Change, Erasure, RuntimeSpec
    from conceptbench.models.runtime import Runtime

    class Bad(Runtime):
        name = "bad-exit"

        @contextmanager
        def attached(self, base):
            yield
            raise ValueError("late")

    RUNTIMES.add("bad-exit", Bad)
    name, p = next(iter(sd1.parameters("kv").items()))
    before = p.data
    erasure = Erasure([Change("unet", "additive", {name: torch.ones_like(before)})], RuntimeSpec("bad-exit"))
    with pytest.raises(ValueError, match="late"), erasure.applied(sd1):
        assert not torch.equal(p.data, before)
    assert p.data_ptr() == before.data_ptr() and sd1.runtime is None
