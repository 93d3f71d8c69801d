from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import torch
import torchvision
from calling import cli  # noqa: F401 - a fixture
from safetensors.torch import load_file
from torch import nn

from conceptbench.classes import judges as judges_module
from conceptbench.classes.datasets import ClassImages, load_images
from conceptbench.classes.recipes import RECIPES, Recipe, recipe_of
from conceptbench.classes.training import classifier as classifier_module
from conceptbench.classes.training import generators
from conceptbench.classes.training.generators import build_pipeline, encoded, mean_objective, training_loss
from conceptbench.classes.training.loop import Rows, fit
from conceptbench.classes.training.run import Training, train
from conceptbench.core.errors import MissingWeightsError, StoppedError, UserInputError
from conceptbench.models.families import base_from_pipeline, load_pipeline
from conceptbench.training import fitting

DIGITS = tuple("0123456789")
SMALL = {
    "cvae": Recipe(network={"size": 8, "hidden": [24, 16], "latent": 4}, steps=60, batch=64, lr=3e-3, ema=0.9),
    "ddpm": Recipe(
        network={**RECIPES["ddpm"]["digits"].network, "block_out_channels": [8, 16], "norm_num_groups": 4, "dropout": 0.2},
        steps=24,
        batch=12,
        lr=3e-3,
        ema=0.9,
        clip=1.0,
        label_dropout=0.3,
        flips=True,
    ),
    "classifier": Recipe(network={"architecture": "cnn", "size": 8, "widths": [4, 8], "features": 16}, epochs=3, batch=64, lr=5e-3),
}
MEASURED = {"cvae": "negative_elbo", "ddpm": "noise_error", "classifier": "accuracy"}


def job(model, **changes):
    return Training(model, "digits", **{"recipe": SMALL[model], "seed": 5, **changes})


def weights(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.safetensors")}


def stop_after(calls):
    left = iter(range(calls - 1))

    def check():
        if next(left, None) is None:
            raise StoppedError("stopped")

    return check


@pytest.mark.parametrize("model", SMALL)
def test_from_beginning_to_end_and_resumed(model, tmp_path, monkeypatch):
    monkeypatch.setattr(generators, "TEST_DRAWS", 1)
    state = torch.random.get_rng_state()
    done = train(job(model), tmp_path / "whole")
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's draws change
    assert {"model": model, "data": "digits", "images": 1438, "test_images": 359, "seed": 5, "without": []}.items() <= done.items()
    first = train(job(model, steps=1), tmp_path / "first")
    better = done[MEASURED[model]] > first[MEASURED[model]] + 0.3 if model == "classifier" else done[MEASURED[model]] < 0.9 * first[MEASURED[model]]
    assert better and done["loss"] < first["loss"]
    for calls in (7, 12):
        with pytest.raises(StoppedError):
            train(job(model), tmp_path / "parts", check=stop_after(calls))
        assert not weights(tmp_path / "parts") and (tmp_path / "parts" / "training.pt").exists()
    torch.manual_seed(99)
    again = train(job(model), tmp_path / "parts")
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole") and again == done
    assert not (tmp_path / "parts" / "training.pt").exists()
    other = train(job(model, seed=6, steps=1), tmp_path / "other")
    assert weights(tmp_path / "other") != weights(tmp_path / "first") and other["steps"] == 1


def test_other_trainings_and_finished_ones_are_refused(tmp_path):
    with pytest.raises(StoppedError):
        train(job("cvae"), tmp_path, check=stop_after(2))
    for other in (job("cvae", seed=6), job("cvae", without=("3",)), job("cvae", recipe=SMALL["cvae"].model_copy(update={"lr": 1e-3}))):
        with pytest.raises(UserInputError, match=r"training.pt is of another training"):
            train(other, tmp_path)
    whole = (tmp_path / "training.pt").read_bytes()
    (tmp_path / "training.pt").write_bytes(whole[:2000])
    with pytest.raises(UserInputError, match=r"cannot read .*training.pt"):
        train(job("cvae"), tmp_path)
    (tmp_path / "training.pt").write_bytes(whole)
    assert train(job("cvae", steps=4), tmp_path)["steps"] == 4  # the number of steps may change
    with pytest.raises(UserInputError, match="already has a trained model"):
        train(job("cvae"), tmp_path)


def test_a_class_that_is_left_out_is_never_seen(tmp_path):
    done = train(job("cvae", without=("3", "7")), tmp_path)
    labels = load_images("digits").labels
    assert done["images"] == int(((labels != 3) & (labels != 7)).sum()) and done["classes"] == list(DIGITS) and done["without"] == ["3", "7"]
    torch.manual_seed(5)
    before = build_pipeline("cvae", SMALL["cvae"], DIGITS).components["vae"].decoder[0].weight.detach()
    after = load_pipeline(str(tmp_path)).components["vae"].decoder[0].weight.detach()
    moved = [float((after - before)[:, 4 + k].abs().max()) for k in range(10)]
    assert [k for k, m in enumerate(moved) if m < 1e-6] == [3, 7]
    train(job("classifier", without=("3",), steps=2), tmp_path / "classifier")
    assert json.loads((tmp_path / "classifier" / "classifier.json").read_text())["without"] == ["3"]


@pytest.mark.parametrize(("dropout", "moves"), [(1.0, [10]), (0.0, list(range(10)))])
def test_label_dropout_trains_the_label_of_no_class(dropout, moves):
    torch.manual_seed(0)
    recipe = SMALL["ddpm"].model_copy(update={"label_dropout": dropout})
    base = base_from_pipeline(build_pipeline("ddpm", recipe, DIGITS), "b")
    base.network.requires_grad_(True)
    data = load_images("digits")
    training_loss(base, data, recipe)(torch.arange(40), torch.Generator().manual_seed(1)).backward()
    assert base.network.class_embedding.weight.grad.abs().sum(1).nonzero().flatten().tolist() == moves


def test_the_loss_is_the_bases_own(monkeypatch):
    base = base_from_pipeline(build_pipeline("ddpm", SMALL["ddpm"], DIGITS), "b")
    data = load_images("digits")
    recipe = SMALL["ddpm"].model_copy(update={"label_dropout": 0.0, "flips": False})
    seen = {}

    def objective(x, encoded, draws):
        seen.update(x=x, rows=encoded.hidden[:, 0], t=draws.t)
        return torch.arange(float(len(x)))

    monkeypatch.setattr(base, "objective", objective)
    rows = torch.arange(60, 120)
    assert float(training_loss(base, data, recipe)(rows, torch.Generator().manual_seed(1))) == 29.5  # the mean over examples
    plain = torch.tensor(data.images[60:120, None, :, :, 0] / 127.5 - 1).float()
    torch.testing.assert_close(seen["x"], plain)
    np.testing.assert_array_equal(seen["rows"].argmax(1), data.labels[60:120])
    assert seen["t"].min() < 200 and seen["t"].max() > 800
    training_loss(base, data, SMALL["ddpm"])(rows, torch.Generator().manual_seed(1))
    straight = (seen["x"] - plain).abs().amax((1, 2, 3)) < 1e-5
    mirrored = (seen["x"] - plain.flip(-1)).abs().amax((1, 2, 3)) < 1e-5
    assert (straight | mirrored).all() and 15 < int(straight.sum()) < 45
    assert 5 < int((seen["rows"].sum(1) == 0).sum()) < 35
    assert not encoded(base, torch.tensor([-1])).hidden.any()


def test_what_is_measured_is_the_mean_over_all_images(monkeypatch):
    base = base_from_pipeline(build_pipeline("cvae", SMALL["cvae"], DIGITS), "b")
    data = load_images("digits", "train")
    monkeypatch.setattr(base, "objective", lambda x, encoded, draws: encoded.hidden[:, 0].argmax(1).float())
    assert mean_objective(base, data) == pytest.approx(data.labels.mean(), rel=1e-6)


def line(recipe, tmp_path, check=lambda: None, steps=4):
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
    kept, _ = fit(
        network,
        lambda rows, _: 100 * (network(x[rows]) - 1).square().mean(),
        recipe,
        10,
        steps=steps,
        state=tmp_path / "t.pt",
        key="k",
        seed=1,
        name="line",
        check=lambda: check(network),
    )
    return network, kept


def test_the_average_and_the_clipping(tmp_path):
    passed, norms = [], []

    def look(network):
        passed.append(network.weight.detach().clone())
        norms.append(float(torch.cat([p.grad.flatten() for p in network.parameters()]).norm()))

    recipe = Recipe(network={}, batch=4, lr=0.1, ema=0.3, clip=0.5)
    network, kept = line(recipe, tmp_path, look)
    torch.manual_seed(0)
    average = nn.Linear(3, 1).weight.detach()
    for step, weight in enumerate(passed):
        decay = min(0.3, (step + 1) / (step + 10))
        average = decay * average + (1 - decay) * weight
    torch.testing.assert_close(kept["weight"], average)
    assert max(norms) <= 0.5001
    network, kept = line(recipe.model_copy(update={"ema": 0.0, "clip": None}), tmp_path / "other", look)
    assert torch.equal(kept["weight"], network.weight) and max(norms) > 5


def test_weights_are_saved_every_so_often(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "SAVE_SECONDS", -1.0)
    seen = []
    line(Recipe(network={}, batch=4, lr=0.1), tmp_path, lambda _: seen.append((tmp_path / "t.pt").exists()))
    assert seen == [False, True, True, True]


def test_every_epoch_shows_all_examples_once():
    rows = Rows(10, 4, 0)
    epochs = [torch.cat([rows.at(3 * e + i) for i in range(3)]).tolist() for e in range(3)]
    assert all(sorted(e) == list(range(10)) for e in epochs) and epochs[0] != epochs[1]
    assert Rows(10, 4, 0).at(4).tolist() == epochs[1][4:8] and Rows(10, 4, 1).at(0).tolist() != epochs[0][:4]


def test_recipes_are_the_papers():
    """Heng and Soh 2023, appendix B."""
    told = {("cvae", "mnist"): (100_000, 256, 1e-4), ("ddpm", "cifar10"): (800_000, 128, 1e-4), ("ddpm", "stl10"): (250_000, 64, 2e-4)}
    for (model, data), numbers in told.items():
        recipe = recipe_of(model, data)
        assert (recipe.steps, recipe.batch, recipe.lr) == numbers
    assert recipe_of("classifier", "cifar10").steps_for(50_000) == 20 * 782 and recipe_of("classifier", "mnist").epochs == 20
    vae = build_pipeline("cvae", recipe_of("cvae", "mnist"), DIGITS).components["vae"]
    assert [m.out_features for m in vae.encoder if isinstance(m, nn.Linear)] == [512, 256, 16] and vae.encoder[0].in_features == 794
    assert [m.out_features for m in vae.decoder if isinstance(m, nn.Linear)] == [256, 512, 784]
    for data, size, levels, start in (("cifar10", 32, 4, 1), ("stl10", 64, 5, 2)):
        recipe = recipe_of("ddpm", data)
        with torch.device("meta"):
            unet = build_pipeline("ddpm", recipe, DIGITS).components["unet"]
        assert len(unet.down_blocks) == levels and unet.config.sample_size == size and unet.class_embedding.num_embeddings == 11
        assert [hasattr(b, "attentions") for b in unet.down_blocks] == [i == start for i in range(levels)]  # at 16 x 16
        assert [hasattr(b, "attentions") for b in unet.up_blocks] == [i == levels - 1 - start for i in range(levels)]
        block = unet.down_blocks[0].resnets[0]
        assert block.time_emb_proj.out_features == 2 * block.out_channels and block.dropout.p == 0.1  # scale and shift
        assert recipe.flips and recipe.label_dropout == 0.1 and recipe.ema == 0.9999 and recipe.clip == 1
    assert recipe_of("ddpm", "stl10").split == "all" and not RECIPES["ddpm"]["digits"].flips


def test_resnet34_begins_with_torchvisions_weights(tmp_path, monkeypatch):
    recipe = recipe_of("classifier", "cifar10")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(MissingWeightsError, match=r"'cifar10-classifier' needs .*resnet34-b627a593.pth"):
        classifier_module.fresh_classifier(recipe, 10, "cifar10-classifier")
    known = torchvision.models.resnet34()
    monkeypatch.setattr(classifier_module, "cached_weights", lambda *_: (tmp_path, known.state_dict()))
    network = classifier_module.fresh_classifier(recipe, 10, "cifar10-classifier").eval()
    known.fc = nn.Identity()
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    wanted = known.eval()(torchvision.transforms.v2.functional.resize(x, [224, 224], antialias=True))
    with torch.no_grad():
        torch.testing.assert_close(network.features(x), wanted, atol=1e-4, rtol=1e-3)
        assert network(x).shape == (2, 10)


def test_a_classifier_that_missed_a_class_is_no_judge(tmp_path, monkeypatch):
    monkeypatch.setenv("CONCEPTBENCH_DATA", str(tmp_path))
    train(job("classifier", without=("3",), steps=2), tmp_path / "models" / "mnist-classifier")
    with pytest.raises(MissingWeightsError, match="has not seen 3"):
        judges_module.mnist_classifier()


def test_the_command(cli, tmp_path, monkeypatch):
    code, out, err = cli("train", "cvae", "digits", "--steps", 3, "--output", tmp_path / "model")
    assert code == 0 and out.strip() == str(tmp_path / "model") and "3 steps on 1438 images" in err and "359 test images: -ELBO" in err
    assert load_pipeline(str(tmp_path / "model")).classes == DIGITS
    code, _, err = cli("train", "cvae", "digits", "--steps", 3, "--output", tmp_path / "model")
    assert code == 2 and "already has a trained model" in err
    monkeypatch.setenv("CONCEPTBENCH_DATA", str(tmp_path / "data"))
    code, out, err = cli("train", "classifier", "digits", "--steps", 3, "--without", 3, "--without", 4)
    assert code == 0 and out.strip() == str(tmp_path / "data/models/digits-classifier") and "accuracy 0." in err
    for arguments, told in (
        (("cvea", "digits"), "did you mean 'cvae'"),
        (("cvae", "digit"), "did you mean 'digits'"),
        (("ddpm", "mnist"), "known: cifar10, digits, stl10"),
        (("cvae", "digits", "--without", "33"), "unknown class '33'"),
        (("cvae", "digits", "--device", "cuda:99"), "no device 'cuda:99'"),
        (("cvae", "mnist"), "is not in"),
    ):
        code, _, err = cli("train", *arguments, "--output", tmp_path / "no")
        assert code == 2 and told in err and not (tmp_path / "no").exists()


def test_a_signal_stops_the_command_and_it_goes_on(cli, tmp_path, monkeypatch, capsys):
    options = ("train", "cvae", "digits", "--steps", 9, "--output")
    assert cli(*options, tmp_path / "whole")[0] == 0
    at, killed = Rows.at, []

    def kills(self, step):
        if step == 4 and not killed:
            killed.append(os.kill(os.getpid(), signal.SIGTERM))
        return at(self, step)

    monkeypatch.setattr(Rows, "at", kills)
    code, _, err = cli(*options, tmp_path / "parts")
    assert code == 143 and "run the same command again" in err
    code, _, err = cli(*options, tmp_path / "parts")
    assert code == 0 and "goes on from step 5" in err and weights(tmp_path / "parts") == weights(tmp_path / "whole")
    assert {v.dtype for v in load_file(next((tmp_path / "parts").rglob("*.safetensors"))).values()} == {torch.float16}


def test_images_of_one_class():
    data = ClassImages(np.zeros((2, 8, 8, 3), np.uint8), np.array([0, 1]), ("a", "b"))
    assert data.without(["a"]).labels.tolist() == [1]
