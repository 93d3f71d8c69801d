from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conceptbench.classes.bases import SHIPPED, WEIGHTS
from conceptbench.classes.classifiers import read_classifier
from conceptbench.classes.datasets import load_images
from conceptbench.classes.judges import ClassJudge
from conceptbench.classes.recipes import recipe_of
from conceptbench.classes.training.run import Training, train
from conceptbench.core.errors import MissingWeightsError
from conceptbench.core.label_sets import label_index
from conceptbench.core.registry import BASES, JUDGES
from conceptbench.core.schemas import Sampler
from conceptbench.models.conditions import Condition
from conceptbench.models.families import load_base

DIGITS = tuple("0123456789")
NAMES = {"digits-cvae": "training.json", "digits-ddpm": "training.json", "digits-classifier": "classifier.json"}


@pytest.fixture(scope="module")
def judge():
    return JUDGES.load("digits-classifier")()


@pytest.fixture(scope="module")
def test_images():
    return load_images("digits", "test")


def description(name):
    return json.loads((WEIGHTS / name / NAMES[name]).read_text())


def test_weights_are_small_and_of_the_recipe():
    assert set(NAMES) == set(SHIPPED)
    files = [p for p in WEIGHTS.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 2_000_000 and not [p for p in files if p.suffix not in (".json", ".safetensors")]
    for path in files:
        if path.suffix == ".safetensors":
            assert {v.dtype for v in load_file(path).values()} == {torch.float16}
    for name in SHIPPED:
        data, _, model = name.partition("-")
        found, recipe = description(name), recipe_of(model, data)
        assert found["recipe"] == json.loads(recipe.model_dump_json()) and found["steps"] == recipe.steps_for(1438)
        assert (found["seed"], found["without"], found["images"], found["test_images"]) == (0, [], 1438, 359)


def test_the_classifier_knows_the_test_images(judge, test_images):
    said = judge(test_images.images)
    assert list(said) == ["digit"] and said["digit"].shape == (359, 10) and said["digit"].dtype == np.float32
    np.testing.assert_allclose(said["digit"].sum(1), 1, atol=1e-5)
    accuracy = float((said["digit"].argmax(1) == test_images.labels).mean())
    assert accuracy >= 0.97 and accuracy == pytest.approx(description("digits-classifier")["accuracy"])
    assert judge.card.role == "classifier" and judge.card.labels == {"digit": DIGITS}
    assert label_index("digit/3", judge.card.numbered()) == 3


def test_an_image_gets_the_same_answer_in_any_company(judge, test_images):
    features = JUDGES.load("digits-features")()
    for one, key in ((judge, "digit"), (features, "features")):
        whole = one(test_images.images[:80])[key]
        assert np.array_equal(one(test_images.images[70:73])[key], whole[70:73])
    found = features(test_images.images[:5])["features"]
    assert found.shape == (5, 96) and found.min() >= 0 and found.dtype == np.float32
    assert features.card.role == "features" and features.card.id == "digits-features" and features.card.sha256 == judge.card.sha256
    linear = judge.network.head
    logits = torch.from_numpy(found) @ linear.weight.T + linear.bias
    np.testing.assert_allclose(logits.softmax(1).numpy(), judge(test_images.images[:5])["digit"], atol=1e-5)


def test_larger_images_and_sure_answers(judge, test_images, monkeypatch):
    large = test_images.images[:40].repeat(4, 1).repeat(4, 2)
    assert (judge(large)["digit"].argmax(1) == test_images.labels[:40]).mean() > 0.9
    monkeypatch.setattr(judge.network, "forward", lambda x: torch.tensor([[1e4, 0.0, -1e4]]).expand(len(x), 3))
    assert judge(large[:2])["digit"].tolist() == [[1, 0, 0]] * 2


@pytest.mark.parametrize(
    ("name", "sampler", "count", "mean", "worst"),
    [("digits-cvae", Sampler(steps=1, guidance=1.0), 40, 0.95, 0.9), ("digits-ddpm", Sampler(scheduler="ddim", steps=20, guidance=2.0), 10, 0.9, 0.6)],
)
def test_samples_are_judged_right(judge, name, sampler, count, mean, worst):
    base = load_base(name)
    assert base.classes == DIGITS and base.info.tier == "mini" and base.info.size == 8 and base.info.family == name.partition("-")[2]
    asked = [Condition(c) for c in DIGITS for _ in range(count)]
    images = base.sample(asked, range(5000, 5000 + len(asked)), sampler)
    right = (judge(images)["digit"].argmax(1) == np.repeat(np.arange(10), count)).reshape(10, count).mean(1)
    assert right.mean() >= mean and right.min() >= worst
    own = images.reshape(10, count, -1).astype(float)
    assert own.std(1).mean(1).min() > 8  # not one image a class
    real = load_images("digits").images
    assert abs(float(images.mean()) - float(real.mean())) < 8


def test_the_card_says_what_the_files_say():
    text = (Path(WEIGHTS).parent / "MODEL_CARD.md").read_text()
    found = {n: description(n) for n in SHIPPED}
    for figure in (
        f"{100 * found['digits-classifier']['accuracy']:.2f} %",
        f"{found['digits-cvae']['negative_elbo']:.2f} nats",
        f"{found['digits-ddpm']['noise_error']:.2f} an image",
        *(f"conceptbench train {n.partition('-')[2]} digits --output conceptbench/classes/weights/{n}" for n in SHIPPED),
    ):
        assert figure in text
    means = re.search(r"^\| mean \| ([\d.]+) \| ([\d.]+) \|$", text, re.M)
    assert float(means[1]) >= 95 and float(means[2]) >= 90
    assert (Path(WEIGHTS).parent / "samples.png").exists()


def test_models_that_are_trained_here(monkeypatch, tmp_path):
    monkeypatch.setenv("CONCEPTBENCH_DATA", str(tmp_path))
    for name in ("mnist-cvae", "cifar10-ddpm", "stl10-ddpm"):
        data, _, model = name.partition("-")
        with pytest.raises(MissingWeightsError) as caught:
            BASES.load(name)()
        assert f"conceptbench train {model} {data} --download" in str(caught.value) and str(tmp_path / "models" / name) in str(caught.value)
    for name in ("mnist-classifier", "cifar10-features", "stl10-classifier", "stl10-features"):
        with pytest.raises(MissingWeightsError, match=f"conceptbench train classifier {name.partition('-')[0]} --download"):
            JUDGES.load(name)()
    small = recipe_of("cvae", "digits").model_copy(update={"network": {"size": 8, "hidden": [8, 8], "latent": 2}})
    train(Training("cvae", "digits", steps=1, recipe=small), tmp_path / "models" / "mnist-cvae")
    base = BASES.load("mnist-cvae")()
    assert base.info.id == "mnist-cvae" and base.info.tier == "paper"


def test_a_classifier_that_cannot_be_read(tmp_path):
    (tmp_path / "classifier.json").write_text((WEIGHTS / "digits-classifier" / "classifier.json").read_text())
    (tmp_path / "classifier.safetensors").write_bytes(b"no")
    with pytest.raises(MissingWeightsError, match="cannot load the classifier"):
        read_classifier(tmp_path)


def test_each_data_set_has_its_head(monkeypatch):
    """The paper-tier classifiers have the labels of their data set, under the head of its kind."""
    monkeypatch.setattr("conceptbench.classes.judges.model_folder", lambda name, index: WEIGHTS / "digits-classifier")
    assert ClassJudge("cifar10", "classifier").card.numbered()[3] == "object/3" and ClassJudge("mnist", "classifier").card.numbered()[3] == "digit/3"
