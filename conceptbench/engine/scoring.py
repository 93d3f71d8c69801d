"""From what the judges said to result rows: values an image, estimates, paired differences to the base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from conceptbench.core.errors import UserInputError, unknown_name
from conceptbench.core.manifests import task_concepts
from conceptbench.core.metric import Judge, Metric, Scored
from conceptbench.core.registry import JUDGES, METRICS
from conceptbench.core.results import Difference, ResultRow
from conceptbench.core.schemas import Concept, Suite, Task
from conceptbench.engine.plan import ImageSpec

Said = Mapping[str, Mapping[str, NDArray[Any]]]
"""image key -> what one judge said of the image."""
ALL = "*"


@dataclass(frozen=True)
class Measure:
    """A metric of a suite with its judge's id."""

    metric: Metric
    judge: str


def load_measures(suite: Suite) -> tuple[list[Measure], dict[str, Judge]]:
    """The suite's metrics and the judges that they ask, each judge loaded once.

    Raises:
        UserInputError: a metric has no judge of the role it needs, or an option is wrong.
    """
    judges: dict[str, Judge] = {}
    measures = []
    for spec in suite.metrics:
        kind: type[Metric] = METRICS.load(spec.metric)
        if spec.judge is None:
            raise UserInputError(f"metric {spec.metric!r} needs a judge of role {kind.role!r}", f"judges: {', '.join(JUDGES.names())}")
        if spec.judge not in judges:
            judges[spec.judge] = JUDGES.load(spec.judge)()
        card = judges[spec.judge].card
        if card.role != kind.role:
            raise UserInputError(f"metric {spec.metric!r} needs a judge of role {kind.role!r}, and {spec.judge!r} is a {card.role}")
        try:
            config = kind.Config(**spec.options)
        except ValueError as error:
            raise UserInputError(f"options of metric {spec.metric!r}: {error}") from error
        measures.append(Measure(kind(config, card), spec.judge))
    ids = {m.metric.id for m in measures}
    for name in (suite.headline.erased, suite.headline.kept):
        if name not in ids:
            raise unknown_name("headline metric", name, ids)
    return measures, judges


def _values(measure: Measure, specs: Sequence[ImageSpec], concepts: Mapping[str, Concept], keys: Sequence[str], said: Said) -> list[float | None]:
    values: list[float | None] = []
    for spec, key in zip(specs, keys, strict=True):
        heard = said.get(key)
        values.append(None if heard is None else measure.metric.value(Scored(concepts[spec.concept], spec.role, spec.prompt_id, heard)))
    return values


@dataclass(frozen=True)
class Model:
    """A model to score: its row names and, by judge, what was said of its images.

    Attributes:
        eraser, preset: row fields.
        key_of: image -> its key under this model.
        said: judge -> what it said.
        extra: further row fields (hashes, cost).
    """

    eraser: str
    preset: str
    key_of: Callable[[ImageSpec], str]
    said: Mapping[str, Said]
    extra: Mapping[str, Any]


def rows_of(
    suite: Suite, task: Task, specs: Sequence[ImageSpec], measures: Sequence[Measure], model: Model, base: Model, common: Mapping[str, Any]
) -> list[ResultRow]:
    """All rows of a model on a task: per metric and role one over all concepts, then one a concept."""
    concepts = task_concepts(suite, task)
    rows = []
    for measure in measures:
        for role in ("target", "retained"):
            chosen = [s for s in specs if s.role == role and measure.metric.applies(concepts[s.concept], s.role)]
            names = list(dict.fromkeys(s.concept for s in chosen))
            for concept in [ALL, *names] if names else []:
                group = [s for s in chosen if concept in (ALL, s.concept)]
                rows.append(_row(suite, task, group, concept, measure, model, base, concepts, common))
    return rows


def _row(
    suite: Suite,
    task: Task,
    group: Sequence[ImageSpec],
    concept: str,
    measure: Measure,
    model: Model,
    base: Model,
    concepts: Mapping[str, Concept],
    common: Mapping[str, Any],
) -> ResultRow:
    metric, role = measure.metric, group[0].role
    values = _values(measure, group, concepts, [model.key_of(s) for s in group], model.said[measure.judge])
    of_base = _values(measure, group, concepts, [base.key_of(s) for s in group], base.said[measure.judge])
    clusters = [s.prompt_id for s in group]
    estimate = metric.estimate(values, clusters, len(group), role)
    reference = metric.estimate(of_base, clusters, len(group), role)
    delta = Difference.of(values, of_base, clusters, rate=metric.is_rate) if model is not base else Difference(value=None)
    status = "partial" if estimate.scored < estimate.planned else str(common["status"])
    return ResultRow(
        suite=suite.name,
        suite_version=suite.version,
        task=task.id,
        role=role,
        concept=concept,
        eraser=model.eraser,
        preset=model.preset,
        metric=metric.id,
        protocol=metric.protocol,
        better=metric.better(role),
        unit=metric.unit,
        value=estimate.value,
        ci_low=estimate.low,
        ci_high=estimate.high,
        ci_kind=estimate.kind,
        reason=estimate.reason,
        n_planned=estimate.planned,
        n_scored=estimate.scored,
        n_failed=estimate.failed,
        clusters=estimate.clusters,
        base_value=reference.value,
        delta=delta.value,
        delta_low=delta.low,
        delta_high=delta.high,
        status=status,
        judge_sha256=metric.judge.sha256,
        **{k: v for k, v in common.items() if k != "status"},
        **model.extra,
    )
