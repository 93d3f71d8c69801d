"""Rows of metrics that are made of other metrics' estimates, of what is erased and what must stay; what is brought back or unseen is no part of them."""

from __future__ import annotations

from collections.abc import Sequence

from conceptbench.core.errors import UserInputError
from conceptbench.core.protocols import names_of
from conceptbench.core.results import Difference, Estimate, ResultRow
from conceptbench.core.schemas import Role
from conceptbench.core.whole_metric import DerivedMetric
from conceptbench.engine.groups import ALL
from conceptbench.engine.measures import Measures, source_protocols
from conceptbench.engine.rows import NOTHING, RowMaker
from conceptbench.engine.seen import Model


def estimate_from(row: ResultRow) -> Estimate:
    """The estimate that a row was made from."""
    return Estimate(
        value=row.value,
        low=row.ci_low,
        high=row.ci_high,
        kind=row.ci_kind,
        planned=row.n_planned,
        scored=row.n_scored,
        failed=row.n_failed,
        clusters=row.clusters,
        unit=row.unit,
        better=row.better,
        reason=row.reason,
        spread=row.spread,
        spread_kind=row.spread_kind,
    )


class RowEstimates:
    """Estimates by metric, role and concept (:class:`conceptbench.core.whole_metric.Estimates`), from the rows of a model and a task.

    Args:
        rows: the model's.
        base: the base's.
    """

    def __init__(self, rows: Sequence[ResultRow], base: Sequence[ResultRow]) -> None:
        self._of = {of_base: {(n, r.role, r.concept): r for r in own for n in names_of(r.protocol)} for of_base, own in ((False, rows), (True, base))}

    def of(self, metric: str, role: Role, concept: str = ALL, *, base: bool = False) -> Estimate:
        """A metric's estimate."""
        found = self._of[base].get((metric, role, concept))
        if found is None:
            about = f"{role} concepts" if concept == ALL else f"{role} concept {concept!r}"
            raise UserInputError(f"metric {metric!r} has no row for {about}", "take a metric that applies to them")
        return estimate_from(found)

    def concepts(self, metric: str, role: Role) -> list[str]:
        """The concepts of a role that the metric applies to."""
        return [c for m, r, c in self._of[False] if m == metric and r == role and c != ALL]


def derived_rows(
    measures: Measures, maker: RowMaker, model: Model, rows: Sequence[ResultRow], base: Sequence[ResultRow] | None, *, compared: bool
) -> list[ResultRow]:
    """The rows of a model.

    Args:
        measures: the suite's.
        maker: of rows.
        model: whose.
        rows: its rows so far.
        base: the base's rows; None for the base itself.
        compared: whether its images are the base's prompts and noise.
    """
    protocols = source_protocols(measures)
    of_model, of_base = RowEstimates(rows, rows if base is None else base), RowEstimates(rows if base is None else base, rows if base is None else base)
    found = []
    for metric in measures.derived:
        role = metric.row_role
        sources = [r for r in rows if r.role in ("target", "retained") and set(names_of(r.protocol)) & set(metric.sources)]
        if not sources:  # e.g. of pairs, for the base itself
            continue
        # another judge or arithmetic of a source makes another number
        protocol = f"{metric.protocol}/{'+'.join(dict.fromkeys(protocols[n].partition('@')[2].replace('/', ':') for n in metric.sources))}"
        concepts = [ALL] if role == "model" else [ALL, *of_model.concepts(metric.sources[0], role)]
        for concept in concepts if role == "model" or len(concepts) > 1 else []:
            estimate = _combined(metric, of_model, concept).model_copy(update={"better": metric.better(), "unit": metric.unit})
            other = _combined(metric, of_base, concept).value
            both = compared and base is not None and other is not None and estimate.value is not None
            delta = Difference(value=estimate.value - other) if both else NOTHING  # type: ignore[operator] # neither is None
            partial = any(r.status == "partial" for r in sources)
            found.append(maker.row(metric, model, role, concept, estimate, base=other, delta=delta, partial=partial, protocol=protocol))
    return found


def _combined(metric: DerivedMetric, estimates: RowEstimates, concept: str) -> Estimate:
    """The metric's estimate; where a source has no row for this task, none, and the reason."""
    try:
        return metric.combine(estimates, concept)
    except UserInputError as error:
        return Estimate(value=None, reason=error.message)
