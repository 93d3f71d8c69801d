from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from conceptbench.core.errors import UserInputError
from conceptbench.core.judge import JudgeCard
from conceptbench.core.whole_metric import Edited
from conceptbench.metrics.weight_change import FORMS, WeightChange, changes
from conceptbench.models.erasure import Change

NOBODY = JudgeCard("", "features", "", "", "", "", {})
# by hand: |d| sums to 3 in a and 4 in b; c and d are the same
BEFORE = {"unet.a": np.array([1.0, 2.0, 2.0], np.float32), "unet.b": np.zeros((2, 2), np.float32), "unet.c": np.ones(4, np.float32), "text.d": np.ones(2)}
AFTER = {"unet.a": np.array([2.0, 2.0, 0.0], np.float32), "unet.b": np.array([[0, 0], [0, -4]], np.float32), "unet.c": np.ones(4, np.float32)}
BY_HAND = {
    "l1-all": 7 / 4,
    "l1-changed": 7 / 2,
    "relative-l2": math.sqrt((1 + 4 + 16) / (9 + 0 + 4 + 2)),
    "tensors": 2,
    "max": 4,
    "rece": math.sqrt(5) + 4,
}


def measure(form, before, after):
    return WeightChange(WeightChange.Config(form=form), NOBODY).measure(Edited(before, after, {}))


@pytest.mark.parametrize("form", FORMS)
def test_by_hand(form):
    assert measure(form, BEFORE, AFTER) == pytest.approx(BY_HAND[form], rel=1e-12)


def test_every_form_has_a_figure_by_hand_and_a_protocol_of_its_own():
    metrics = [WeightChange(WeightChange.Config(form=form), NOBODY) for form in FORMS]
    assert set(FORMS) == set(BY_HAND) and len({m.protocol for m in metrics}) == len(FORMS)
    default = WeightChange(WeightChange.Config(), NOBODY)
    assert default.protocol == "weight_change-l1-changed@l1-per-changed-tensor" and default.better() == "lower" and not default.timed
    assert [m.unit for m in metrics] == ["weight", "weight", "ratio", "tensors", "weight", "weight"]
    with pytest.raises(ValidationError, match="l1-al"):
        WeightChange.Config(form="l1-al")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("after", [{}, {"unet.c": np.ones(4, np.float32)}])
def test_no_change_is_zero(form, after):
    """Also where an erasure names tensors and leaves them as they are: no changed tensor to divide by."""
    assert measure(form, BEFORE, after) == 0.0
    assert measure(form, {}, {}) == 0.0


def test_a_base_of_zeros_has_no_relative_change():
    zeros = {"unet.b": np.zeros(2, np.float32)}
    assert measure("relative-l2", zeros, {"unet.b": np.ones(2, np.float32)}) is None
    assert measure("max", zeros, {"unet.b": np.ones(2, np.float32)}) == 1.0


@pytest.mark.parametrize("form", ["l1-all", "l1-changed", "relative-l2", "max", "rece"])
@pytest.mark.parametrize("name", ["unet.a", "unet.b"])
def test_what_is_no_number_is_undefined(form, name):
    """Wherever it stands: the first tensor or a later one."""
    assert measure(form, BEFORE, {**AFTER, name: np.full_like(BEFORE[name], np.nan)}) is None


def test_sums_do_not_round_in_single_precision():
    """2^24 + 1 is the first whole number that float32 cannot hold."""
    before = {"w": np.zeros(2**24 + 1, np.float32)}
    assert measure("l1-all", before, {"w": np.ones(2**24 + 1, np.float32)}) == 2**24 + 1


def test_small_changes_of_a_half_precision_base_are_kept():
    before = {"w": np.ones(4, np.float16)}
    assert measure("max", before, {"w": np.full(4, 1 + 1e-5, np.float32)}) == pytest.approx(1e-5, rel=1e-2)


def test_one_difference_at_a_time():
    steps = changes(BEFORE, AFTER)
    assert next(steps).tolist() == [1, 0, -2] and next(steps).dtype == np.float64 and next(steps, None) is None


@pytest.mark.parametrize("form", FORMS)
def test_a_merged_lora_is_its_explicit_difference(form):
    generator = torch.Generator().manual_seed(0)
    before = {f"unet.{n}": torch.randn(6, 5, generator=generator) for n in ("q", "k", "v")}
    a, b = torch.randn(2, 5, generator=generator), torch.randn(6, 2, generator=generator)
    lora = Change("unet", "low-rank", {"k::A": a, "k::B": b})
    merged = {"unet.k": lora.value("k", before["unet.k"]).numpy()}
    delta = [sum(float(b[i, r]) * float(a[r, j]) for r in range(2)) for i in range(6) for j in range(5)]
    theta = [float(x) for w in before.values() for x in w.flatten()]
    norm = math.sqrt(sum(d * d for d in delta))
    expected = {
        "l1-all": sum(map(abs, delta)) / 3,
        "l1-changed": sum(map(abs, delta)),
        "relative-l2": norm / math.sqrt(sum(t * t for t in theta)),
        "tensors": 1,
        "max": max(map(abs, delta)),
        "rece": norm,
    }
    assert measure(form, {n: w.numpy() for n, w in before.items()}, merged) == pytest.approx(expected[form], rel=1e-6)


def test_weights_of_another_model_are_refused():
    diffusers = {"unet.down_blocks.0.attentions.0.to_k.weight": np.zeros((2, 2), np.float32)}
    compvis = {"unet.down_blocks.0.attention.0.to_k.weight": np.zeros((2, 2), np.float32), "model.x": np.zeros(1, np.float32)}
    with pytest.raises(UserInputError, match=r"attention\.0\.to_k.*2 of its 2 tensors") as caught:
        measure("max", diffusers, compvis)
    assert "nearest in the base: 'unet.down_blocks.0.attentions.0.to_k.weight'" in caught.value.hint
    with pytest.raises(UserInputError, match=r"shape \(1, 2\), and the base's \(2, 2\)"):  # numpy would broadcast it
        measure("max", diffusers, {"unet.down_blocks.0.attentions.0.to_k.weight": np.zeros((1, 2), np.float32)})
    with pytest.raises(UserInputError, match="CompVis"):
        measure("tensors", diffusers, {"xyz": np.zeros(1, np.float32)})
