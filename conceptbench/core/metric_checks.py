"""Checks of a suite's metrics, judges and labels for :mod:`conceptbench.core.validation`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from conceptbench.core.documents import Document, Problem, messages, unknown
from conceptbench.core.errors import ConceptBenchError, nearest, unknown_name
from conceptbench.core.manifests import ConceptFile
from conceptbench.core.metric import JudgeCard, Metric, Quantity
from conceptbench.core.registry import JUDGES, METRICS
from conceptbench.core.schemas import Headline, MetricSpec

Cards = Mapping[str, JudgeCard]
"""judge's name -> its card, of those whose weights are here."""


def metric_problems(document: Document, metrics: Mapping[int, MetricSpec], cards: Cards, headline: Headline | None) -> list[Problem]:
    """What is wrong with a suite's metrics.

    Args:
        document: the suite's file.
        metrics: by their number in it.
        cards: of the judges; what needs the card of another one is left out.
        headline: None if it must not be checked, e.g. because not every metric of the file could be read.
    """
    made: dict[int, Quantity] = {}
    problems: list[Problem] = []
    for i, spec in metrics.items():
        if spec.metric not in METRICS.names():
            continue
        try:
            kind: type[Quantity] = METRICS.load(spec.metric)
        except ConceptBenchError as error:
            problems.append(document.problem(("metrics", i, "metric"), error.message))
            continue
        problems += _judge_problems(document, i, spec, kind, cards)
        try:
            config = kind.Config.model_validate(spec.options)
        except ValidationError as error:
            found = messages(kind.Config, error)
            problems += [document.problem(("metrics", i, "options", *place), f"option of metric {spec.metric!r}: {text}") for place, text in found]
            continue
        # without weights a stand-in card serves: a metric's id is made of its options
        card = cards.get(spec.judge or "") or JudgeCard(spec.judge or "", "features", "", "", "", "", {})
        made[i] = kind(config, card)
    problems += _twice(document, metrics, made)
    if headline is not None and len(made) == len(metrics):
        ids = {m.id for m in made.values() if isinstance(m, Metric)}
        problems += [unknown(document.path, document.line(("headline", end)), "headline metric", name, ids) for end, name in headline if name not in ids]
    return problems


def _judge_problems(document: Document, i: int, spec: MetricSpec, kind: type[Quantity], cards: Cards) -> list[Problem]:
    if not kind.role:
        return [document.problem(("metrics", i, "judge"), f"metric {spec.metric!r} asks no judge: leave it out")] if spec.judge is not None else []
    fitting = ", ".join(n for n, c in cards.items() if c.role == kind.role)
    instead = f"; of that role: {fitting}" if fitting else f" (judges: {', '.join(JUDGES.names())})"
    if spec.judge is None:
        return [document.problem(("metrics", i), f"metric {spec.metric!r} needs a judge of role {kind.role!r}{instead}")]
    card = cards.get(spec.judge)
    if card is None or card.role == kind.role:
        return []
    return [
        document.problem(("metrics", i, "judge"), f"metric {spec.metric!r} needs a judge of role {kind.role!r}, and {spec.judge!r} is a {card.role}{instead}")
    ]


def _twice(document: Document, metrics: Mapping[int, MetricSpec], made: Mapping[int, Quantity]) -> list[Problem]:
    """Metrics of one id and judge: their rows could not be told apart."""
    first: dict[tuple[str, str | None], int] = {}
    found = []
    for i, metric in made.items():
        key = (metric.id, metrics[i].judge)
        if first.setdefault(key, i) != i and made[first[key]].protocol == metric.protocol:
            line = document.line(("metrics", first[key]))
            found.append(document.problem(("metrics", i), f"metric {metric.id!r} with this judge is in the suite already, in line {line}"))
    return found


def label_problems(names: Iterable[str], file: ConceptFile, cards: Cards) -> list[Problem]:
    """Labels of a head that the suite's judges have, but a label that none of them knows; today's metrics pass over those silently."""
    heads: dict[str, set[str]] = {}
    for card in cards.values():
        for head, labels in card.labels.items():
            heads.setdefault(head, set()).update(labels)
    found = []
    for name in names:
        concept = file.concepts.get(name)
        for j, text in enumerate(concept.labels if concept else ()):
            head, _, label = text.partition("/")
            if label and head in heads and label not in heads[head]:
                line = file.document.line((file.positions[name], "labels", j))
                found.append(unknown(file.document.path, line, f"label of head {head!r} for concept {name!r}", label, heads[head]))
            elif label and heads and head not in heads and nearest(head, heads):
                message = unknown_name("head", head, heads).message
                found.append(file.document.problem((file.positions[name], "labels", j), f"label {text!r} of concept {name!r}: {message}", warning=True))
    return found
