from __future__ import annotations

import json

import numpy as np
import pytest

from conceptbench.core.manifests import load_concepts
from conceptbench.core.schemas import Sampler
from conceptbench.mini.base import load
from conceptbench.mini.judges import WEIGHTS, MiniClassifier, MiniCLIP, MiniDetector
from conceptbench.mini.render import Mark, Placement, Scene, render
from conceptbench.mini.training.card import SAMPLER, card_text
from conceptbench.models.conditions import Condition


@pytest.fixture(scope="module")
def mini():
    return load()


@pytest.fixture(scope="module")
def classifier():
    return MiniClassifier()


def quality():
    return json.loads((WEIGHTS / "quality.json").read_text())


def test_the_card_is_made_of_the_measured_figures():
    assert (WEIGHTS / "MODEL_CARD.md").read_text() == card_text(quality())


def test_the_measured_quality_is_what_the_design_asks_for():
    measured = quality()
    assert min(measured["judges"][k] for k in ("subject", "style", "identity")) >= 0.98
    for kind, rates in measured["base"]["right"].items():
        assert np.mean(list(rates.values())) >= 0.90, kind
        assert min(rates.values()) >= 0.75, kind
    assert measured["marks"]["marked settings"] >= 0.40 and measured["bytes"] <= 40 * 2**20


def test_figures_are_reproduced_on_a_sample(mini, classifier):
    """One concept of each kind, drawn again on the card's seeds, gives the card's rate."""
    for name in ("church", "Zed Novak"):
        concept = load_concepts("mini")[name]
        texts = [("a photo of {}", "a picture of {}", "an image of {}")[i % 3].format(concept.phrases[0]) for i in range(24)]
        images = mini.sample([Condition(t) for t in texts], range(24), SAMPLER)
        answers = classifier(images)["subject"].argmax(1)
        rate = np.isin(answers, [classifier.card.labels["subject"].index(name)]).mean()
        assert rate == pytest.approx(quality()["base"]["right"][concept.kind][name], abs=0.05)


def test_architecture(mini):
    assert mini.info.family == "sd1" and mini.info.tier == "mini" and len(mini.attention_sites("mid")) == 1
    assert mini.encode([""]).hidden.shape == (1, 24, 256) and mini.latent_shape(None) == (8, 8, 8)
    assert type(mini.pipeline).__name__ == "StableDiffusionPipeline"


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_same_bytes_in_any_batch(mini, batch):
    prompts = [f"a photo of a {w}" for w in ("cat", "dog", "tree", "church")] * 4
    conditions, seeds, sampler = [Condition(p) for p in prompts], list(range(16)), Sampler(steps=4, guidance=3)
    whole = mini.sample(conditions, seeds, sampler)
    assert np.array_equal(whole, np.concatenate([mini.sample(conditions[i : i + batch], seeds[i : i + batch], sampler) for i in range(0, 16, batch)]))


def test_judges_answer_the_same_in_any_batch(classifier):
    drawings = np.stack([render(Scene((Placement(s),), seed=i)) for i, s in enumerate(("cat", "dog", "Kubo", "violin", "fish"))])
    for judge in (classifier, MiniDetector(), MiniCLIP()):
        whole = judge(drawings)
        for i in range(5):
            for name, array in judge(drawings[i : i + 1]).items():
                assert np.array_equal(array[0], whole[name][i]), (type(judge).__name__, name)
    texts, clip = ["a cat", "a dog", "x", "a violin", "a fish"], MiniCLIP()
    assert np.array_equal(clip.encode_texts(texts), np.concatenate([clip.encode_texts([t]) for t in texts]))


def test_judges_know_their_world(classifier):
    subjects = ("cat", "corgi", "Ada Moss", "Kubo", "pizza")
    drawings = np.stack([render(Scene((Placement(s),), seed=i)) for i, s in enumerate(subjects)])
    out = classifier(drawings)
    assert [classifier.card.labels["subject"][i] for i in out["subject"].argmax(1)] == list(subjects)
    assert np.allclose(out["subject"].sum(1), 1, atol=1e-5) and out["features"].shape == (5, 192)
    empty = np.stack([render(Scene((), seed=0)), np.zeros((32, 32, 3), np.uint8), np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)])
    nothing = classifier(empty)["subject"].argmax(1)
    assert [classifier.card.labels["subject"][i] for i in nothing] == ["nothing"] * 3


def test_detector_finds_marks_where_they_are():
    scene = Scene((Placement("car"),), marks=(Mark("cross", 81, 30), Mark("heart", 19, 80)))
    found = MiniDetector()(render(scene)[None])["detections"][0]
    strong = found[found[:, 0] > 0.5]
    assert sorted(strong[:, 1]) == [1, 3]
    cross = strong[strong[:, 1] == 1][0]
    assert abs((cross[2] + cross[4]) / 2 - 0.81) < 0.06 and abs((cross[3] + cross[5]) / 2 - 0.30) < 0.06
    plain = MiniDetector()(render(Scene((Placement("car"),)))[None])["detections"][0]
    assert (plain[:, 0] < 0.5).all()


def test_clip_prefers_the_right_text():
    drawings = np.stack([render(Scene((Placement(s),), seed=1)) for s in ("cat", "car", "tree")])
    clip, texts = MiniCLIP(), ["a photo of a cat", "a photo of a car", "a photo of a tree"]
    images, directions = clip(drawings)["embedding"], clip.encode_texts(texts)
    assert ((images @ directions.T).argmax(1) == [0, 1, 2]).all()
    assert images.dtype == directions.dtype == np.float32 and images.shape == directions.shape == (3, 128)
    for vectors in (images, directions):
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6


def test_clip_cuts_texts_at_24_tokens():
    clip = MiniCLIP()
    long = "a cat and a dog " * 12
    ids, end = clip.tokenizer([long, "a cat"]), clip.tokenizer(["a cat"])[0, -1]
    assert ids.shape == (2, 24) and ids[0, -1] == end and (ids[0, :-1] != end).all()
    vectors = clip.encode_texts([long, f"{long} in neon style", f"in neon style {long}"])
    assert np.array_equal(vectors[0], vectors[1]) and np.abs(vectors[0] - vectors[2]).max() > 1e-2


def test_images_of_another_size_are_reduced(classifier):
    large = np.stack([render(Scene((Placement("cat"),), seed=1)).repeat(4, 0).repeat(4, 1)])
    assert classifier.card.labels["subject"][classifier(large)["subject"].argmax()] == "cat"
