from __future__ import annotations

import numpy as np
import pytest
import torch

from conceptbench.core.errors import UserInputError
from conceptbench.core.judge import JudgeCard
from conceptbench.core.metric import Asked, Scored
from conceptbench.core.results import Estimate
from conceptbench.core.schemas import Concept
from conceptbench.judges.perceptual import check_pairs, normalised, perceptual_distance, tapped, to_range, uniform_heads, unit_channels
from conceptbench.metrics.lpips import LPIPS

JUDGE = JudgeCard("lpips-alex-64", "distance", "0" * 64, "", "", "", {})
CAT = Concept(name="cat", kind="object", phrases=("a cat",))


def scored(distance, role="target", prompt="p"):
    return Scored(Asked(CAT, role, prompt), {"distance": np.float32(distance)})


def test_direction_protocol_and_value():
    lpips = LPIPS(LPIPS.Config(), JUDGE)
    assert (lpips.protocol, lpips.unit, lpips.needs, lpips.role, lpips.is_rate) == ("lpips@pairs/lpips-alex-64", "distance", "pairs", "distance", False)
    assert (lpips.better("target"), lpips.better("retained")) == ("higher", "lower")
    assert lpips.applies(CAT, "target") and lpips.applies(CAT, "retained")
    assert lpips.value(scored(0.25)) == 0.25 and lpips.value(scored(np.nan)) is None


def test_the_mean_is_over_pairs_and_a_failed_one_is_counted():
    lpips = LPIPS(LPIPS.Config(), JUDGE)
    values = [lpips.value(scored(d)) for d in (0.2, 0.4, 0.6, np.inf)]
    estimate = Estimate.of(values, ["a", "b", "c", "d"], planned=4, rate=lpips.is_rate, unit=lpips.unit, better=lpips.better("target"))
    assert estimate.value == pytest.approx(0.4) and (estimate.scored, estimate.failed, estimate.better) == (3, 1, "higher")
    assert estimate.low < 0.4 < estimate.high


def maps(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 4, 5, generator=generator), torch.randn(2, 6, 2, 1, generator=generator)]


def by_loops(a, b, heads):
    """The formula, one number at a time, in Python's doubles."""
    out = []
    for n in range(len(a[0])):
        total = 0.0
        for x, y, head in zip(a, b, heads, strict=True):
            channels, height, width = x.shape[1:]
            for i in range(height):
                for j in range(width):
                    u, v = [float(x[n, c, i, j]) for c in range(channels)], [float(y[n, c, i, j]) for c in range(channels)]
                    lu, lv = sum(c * c for c in u) ** 0.5, sum(c * c for c in v) ** 0.5
                    total += sum(float(head[c]) * (u[c] / lu - v[c] / lv) ** 2 for c in range(channels)) / (height * width)
        out.append(total)
    return out


def test_distance_equals_loops():
    a, b = maps(0), maps(1)
    heads = [torch.tensor([0.1, 0.0, 2.0]), torch.linspace(0, 1, 6)]
    assert perceptual_distance(a, b, heads).tolist() == pytest.approx(by_loops(a, b, heads), rel=1e-5)


def test_uniform_heads_give_the_mean_of_layers_between_0_and_4():
    a = maps(0)
    heads = uniform_heads(a)
    cosine = [torch.nn.functional.cosine_similarity(x, y, dim=1).mean((1, 2)) for x, y in zip(a, maps(1), strict=True)]
    assert torch.allclose(perceptual_distance(a, maps(1), heads), (2 - 2 * torch.stack(cosine)).mean(0), atol=1e-6)
    assert torch.allclose(perceptual_distance(a, [-x for x in a], heads), torch.tensor(4.0))


def test_length_does_not_count_and_nothing_is_zero():
    a, heads = maps(0), uniform_heads(maps(0))
    assert torch.allclose(perceptual_distance(a, [7 * x for x in a], heads), torch.zeros(2), atol=1e-6)
    assert bool((unit_channels(torch.zeros(1, 3, 2, 2)) == 0).all())
    with pytest.raises(ValueError, match="shorter"):
        perceptual_distance(a, a, heads[:1])


def test_taps_are_the_outputs_of_the_layers_named():
    network = torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in range(4)))
    x = torch.randn(2, 3)
    found = tapped(network, (0, 2), x)
    assert len(found) == 2 and torch.equal(found[0], network[0](x)) and torch.equal(found[1], network[2](network[1](network[0](x))))


@pytest.mark.parametrize("value", [1.01, -1.01, 255.0, float("nan")])
def test_only_images_between_minus_1_and_1(value):
    x = torch.zeros(1, 3, 4, 4)
    assert normalised(x).shape == x.shape
    x[0, 0, 0, 0] = value
    with pytest.raises(UserInputError, match=r"\[-1, 1\]"):
        normalised(x)


def test_bytes_fill_the_range():
    x = to_range(np.array([[[[0, 127, 255]]]], np.uint8))
    assert x.shape == (1, 3, 1, 1) and float(x.min()) == -1 and float(x.max()) == 1


def test_pairs_must_fit():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    check_pairs("j", images, images)
    for wrong in (images[:1], images[:, :2], images[..., 0]):
        with pytest.raises(UserInputError, match="'j' compares"):
            check_pairs("j", images, wrong)
    with pytest.raises(UserInputError, match="float64"):
        check_pairs("j", images, images / 255)
