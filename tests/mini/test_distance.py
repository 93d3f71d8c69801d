"""The mini tier's perceptual distance, on drawings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from conceptbench.core.errors import UserInputError
from conceptbench.core.files import sha256_file
from conceptbench.mini.judges import ROWS, MiniClassifier, MiniDetector, MiniLPIPS, to_input, weights_file
from conceptbench.mini.render import Placement, Scene, render

SUBJECTS = ("cat", "corgi", "violin", "church", "Ada Moss", "Kubo", "pizza", "car")


@pytest.fixture(scope="module")
def judge():
    return MiniLPIPS()


@pytest.fixture(scope="module")
def drawings():
    return np.stack([render(Scene((Placement(s),), seed=i)) for i, s in enumerate(SUBJECTS)])


def distances(judge, images, partners):
    return judge(images, partners)["distance"]


def noisy(images, strength):
    noise = np.random.default_rng(0).normal(size=images.shape) * strength
    return np.clip(images + noise, 0, 255).round().astype(np.uint8)


def blurred(images, radius):
    return np.stack([np.asarray(Image.fromarray(i).filter(ImageFilter.GaussianBlur(radius))) for i in images])


def test_card(judge):
    assert (judge.card.id, judge.card.role, judge.card.sha256) == ("mini-lpips", "distance", sha256_file(weights_file("classifier.safetensors")))


def test_equal_images_are_at_zero_and_the_order_does_not_count(judge, drawings):
    others = noisy(drawings, 30)
    assert distances(judge, drawings, drawings).tolist() == [0.0] * len(drawings)
    forth, back = distances(judge, drawings, others), distances(judge, others, drawings)
    assert forth.dtype == np.float32 and forth.shape == (8,) and np.array_equal(forth, back) and (forth > 0).all() and (forth < 2).all()


@pytest.mark.parametrize(("distort", "strengths"), [(noisy, (4, 16, 64)), (blurred, (0.5, 1, 2))])
def test_it_grows_with_the_distortion(judge, drawings, distort, strengths):
    """For every drawing, at every step."""
    steps = np.stack([distances(judge, drawings, distort(drawings, s)) for s in strengths])
    assert (np.diff(steps, axis=0) > 0).all(), steps


def test_another_subject_is_farther_than_a_slight_distortion(judge, drawings):
    other_subject = distances(judge, drawings, np.roll(drawings, 1, axis=0))
    other_seed = distances(judge, drawings, np.stack([render(Scene((Placement(s),), seed=100 + i)) for i, s in enumerate(SUBJECTS)]))
    slight = distances(judge, drawings, noisy(drawings, 4))
    assert (slight < other_subject).all() and other_seed.mean() < other_subject.mean()


def test_it_is_the_mean_of_one_minus_cosine(judge, drawings):
    x, y = to_input(drawings), to_input(noisy(drawings, 30))
    with torch.no_grad():
        a, b = judge.network.stage_outputs(x), judge.network.stage_outputs(y)
    layers = []
    for m, n in zip(a, b, strict=True):
        u, v = m.double().numpy(), n.double().numpy()
        lengths = np.sqrt((u * u).sum(1)), np.sqrt((v * v).sum(1))
        assert min(length.min() for length in lengths) > 0
        layers.append((2 - 2 * (u * v).sum(1) / (lengths[0] * lengths[1])).mean((1, 2)))
    assert len(layers) == 3
    assert distances(judge, drawings, noisy(drawings, 30)) == pytest.approx(np.mean(layers, axis=0), rel=1e-4)


def test_same_answer_in_any_batch(judge, drawings):
    others = noisy(drawings, 30)
    whole = distances(judge, drawings, others)
    for cut in (1, 3):
        parts = [distances(judge, drawings[i : i + cut], others[i : i + cut]) for i in range(0, 8, cut)]
        assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("kind", [MiniClassifier, MiniDetector, MiniLPIPS])
def test_a_full_block_and_a_padded_one_agree(kind, drawings):
    """Views of pixels keep their strides in a full block and lose them in a padded one, and another kernel rounds otherwise."""
    judge = kind()
    images = np.concatenate([noisy(drawings, s) for s in range(0, 64, 8)])
    other = [np.roll(images, 8, axis=0)] if kind is MiniLPIPS else []
    full, part = judge(images, *other), judge(images[:3], *(o[:3] for o in other))
    assert len(images) == ROWS and all(np.array_equal(full[name][:3], part[name]) for name in part)


def test_a_missing_partner_is_an_error(judge, drawings):
    with pytest.raises(UserInputError, match="mini-lpips"):
        judge(drawings, drawings[:-1])
