"""How much an erasure changed the weights: SepME's measure and what its definition leaves open.

SepME (sec. 4.1) reports ``||dtheta||_1 / M`` with M "the number of layers". It does not say whether a layer is a tensor or a
module, whether M counts all layers or the changed ones, of which components, whether buffers count, or in which precision,
and no code was released. So the choices are forms here, each with a name and a protocol of its own: a layer is a *parameter
tensor*; buffers do not count; differences and sums are taken in float64. RECE's script (unet_difference_norm.py) sums the
tensors' Euclidean norms, which is yet another quantity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.errors import UserInputError, nearest
from conceptbench.core.judge import JudgeCard
from conceptbench.core.metric import Better
from conceptbench.core.schemas import Strict
from conceptbench.core.whole_metric import Edited, ErasureMetric

Weights = Mapping[str, NDArray[Any]]
"""Parameters by name, any float dtype."""


def check_names(before: Weights, after: Weights) -> None:
    """Refuses weights of another model, or of the same one under other names.

    Raises:
        UserInputError: ``after`` has a name that ``before`` lacks, or a tensor of another shape.
    """
    unknown = [n for n in after if n not in before]
    if unknown:
        close = nearest(unknown[0], before)
        raise UserInputError(
            f"the erasure changes {unknown[0]!r}, which the base has not ({len(unknown)} of its {len(after)} tensors are unknown)",
            f"nearest in the base: {close!r}" if close else "no name is like it: original (CompVis) names must be converted to diffusers' first",
        )
    for name, value in after.items():
        if value.shape != before[name].shape:
            raise UserInputError(f"the erasure's {name!r} has shape {value.shape}, and the base's {before[name].shape}", "it was made for another base")


def changes(before: Weights, after: Weights) -> Iterator[NDArray[np.float64]]:
    """The differences of the tensors that differ at all, one at a time, so that no second model is ever in memory.

    Args:
        before: the base's parameters.
        after: the erased values; names that are missing are unchanged.

    Raises:
        UserInputError: names or shapes do not fit.
    """
    check_names(before, after)
    for name, value in after.items():
        delta = np.subtract(value, before[name], dtype=np.float64)
        if delta.any():
            yield delta


def l1_per_tensor(before: Weights, after: Weights) -> float:
    """``||dtheta||_1 / M`` with M the number of all parameter tensors in ``before``; 0 if nothing changed."""
    total = math.fsum(float(np.abs(d).sum()) for d in changes(before, after))
    return total / len(before) if total else 0.0


def l1_per_changed_tensor(before: Weights, after: Weights) -> float:
    """``||dtheta||_1 / M`` with M the number of tensors that differ; 0 if nothing changed."""
    sums = [float(np.abs(d).sum()) for d in changes(before, after)]
    return math.fsum(sums) / len(sums) if sums else 0.0


def relative_l2(before: Weights, after: Weights) -> float | None:
    """``||dtheta||_2 / ||theta||_2`` over all of ``before``; 0 if nothing changed, None if all of ``before`` is zero."""
    delta = math.fsum(float(np.square(d).sum()) for d in changes(before, after))
    if delta == 0:
        return 0.0
    theta = math.fsum(float(np.square(w, dtype=np.float64).sum()) for w in before.values())
    return math.sqrt(delta / theta) if theta else None


def changed_tensors(before: Weights, after: Weights) -> float:
    """How many parameter tensors differ in at least one element."""
    return float(sum(1 for _ in changes(before, after)))


def largest_change(before: Weights, after: Weights) -> float:
    """``max |dtheta|`` over all elements; 0 if nothing changed."""
    return float(np.max([np.abs(d).max() for d in changes(before, after)] or [0.0]))  # Python's max would lose a NaN


def sum_of_l2(before: Weights, after: Weights) -> float:
    """The sum over tensors of ``||dW||_2``: RECE's difference norm."""
    return math.fsum(math.sqrt(float(np.square(d).sum())) for d in changes(before, after))


Form = Literal["l1-all", "l1-changed", "relative-l2", "tensors", "max", "rece"]
FORMS: dict[Form, tuple[Callable[[Weights, Weights], float | None], str, str]] = {
    "l1-all": (l1_per_tensor, "l1-per-tensor", "weight"),
    "l1-changed": (l1_per_changed_tensor, "l1-per-changed-tensor", "weight"),
    "relative-l2": (relative_l2, "l2-over-l2", "ratio"),
    "tensors": (changed_tensors, "count", "tensors"),
    "max": (largest_change, "max-abs", "weight"),
    "rece": (sum_of_l2, "sum-of-l2", "weight"),
}
"""Form -> function, arithmetic, unit."""


class WeightChange(ErasureMetric):
    """The size of an erasure's weight change. An erasure that works at run time only changes nothing and has 0.

    ``l1-all`` and ``relative-l2`` are over the denoiser and every component that the erasure changes, so an erasure that
    also edits the text encoder has another denominator than one that does not.
    """

    name, summary = "weight_change", "how much the weights changed (SepME's ||dtheta||_1 / M and its kin)"

    class Config(Strict):
        """Options: the form."""

        form: Form = "l1-changed"

    config: WeightChange.Config

    def __init__(self, config: WeightChange.Config, judge: JudgeCard) -> None:
        super().__init__(config, judge)
        self._function, self._arithmetic, self.unit = FORMS[config.form]

    @property
    def id(self) -> str:
        """``weight_change-l1-changed``."""
        return f"weight_change-{self.config.form}"

    @property
    def arithmetic(self) -> str:
        """``l1-per-changed-tensor`` and so on."""
        return self._arithmetic

    def better(self) -> Better:
        """Lower: the least change that erases."""
        return "lower"

    def measure(self, erasure: Edited) -> float | None:
        """The form's value, or None where it is undefined: a weight that is not a number, or a base of zeros.

        Raises:
            UserInputError: the erasure was made for another base.
        """
        value = self._function(erasure.before, erasure.after)
        return value if value is not None and math.isfinite(value) else None
