"""Result rows from estimates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conceptbench.core.metric import Quantity
from conceptbench.core.results import Difference, Estimate, ResultRow, RowRole
from conceptbench.core.schemas import Suite
from conceptbench.engine.seen import Model

NOTHING = Difference(value=None)


@dataclass(frozen=True)
class RowMaker:
    """Makes the rows of a task.

    Attributes:
        suite, task: whose.
        common: row fields of all models.
    """

    suite: Suite
    task: str
    common: Mapping[str, Any]

    def row(
        self,
        metric: Quantity,
        model: Model,
        role: RowRole,
        concept: str,
        estimate: Estimate,
        *,
        base: float | None = None,
        delta: Difference = NOTHING,
        partial: bool = False,
        part: str = "",
        unit: str = "",
        protocol: str = "",
        reference: str = "",
    ) -> ResultRow:
        """One row.

        Args:
            metric: of the row.
            model: whose.
            role: of the concepts, or model.
            concept: its name, or ``*``.
            estimate: the value.
            base: the base's value.
            delta: the paired difference to it.
            partial: whether not everything that was planned is scored.
            part: of a probe; it becomes part of the metric's name.
            unit: of the part.
            protocol: instead of the metric's own.
            reference: hash of the reference set's images.
        """
        ending = f"-{part}" if part else ""
        return ResultRow(
            suite=self.suite.name,
            suite_version=self.suite.version,
            task=self.task,
            role=role,
            concept=concept,
            eraser=model.eraser,
            preset=model.preset,
            metric=metric.id + ending,
            protocol=protocol or metric.protocol.replace(metric.id, metric.id + ending, 1),
            better=estimate.better,
            unit=unit or metric.unit,
            value=estimate.value,
            ci_low=estimate.low,
            ci_high=estimate.high,
            ci_kind=estimate.kind,
            reason=estimate.reason,
            n_planned=estimate.planned,
            n_scored=estimate.scored,
            n_failed=estimate.failed,
            clusters=estimate.clusters,
            base_value=base,
            delta=delta.value,
            delta_low=delta.low,
            delta_high=delta.high,
            status="partial" if partial else str(self.common["status"]),
            spread=estimate.spread,
            spread_kind=estimate.spread_kind,
            judge_sha256=metric.judge.sha256,
            reference_sha256=reference,
            **{k: v for k, v in self.common.items() if k != "status"},
            **model.extra,
        )
