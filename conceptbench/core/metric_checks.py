"""Checks of a suite's metrics, judges and labels for :mod:`conceptbench.core.validation`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from conceptbench.core.documents import Document, Location, Problem, messages, unknown
from conceptbench.core.errors import ConceptBenchError, nearest, unknown_name
from conceptbench.core.judge import JudgeCard
from conceptbench.core.manifests import ConceptFile
from conceptbench.core.metric import OfImages, Quantity, SetMetric
from conceptbench.core.protocols import protocol_of_headline, protocol_of_source, spelled_out
from conceptbench.core.registry import JUDGES, METRICS, REFERENCES
from conceptbench.core.schemas import Headline, MetricSpec, Watch
from conceptbench.core.whole_metric import DerivedMetric, ErasureMetric

Cards = Mapping[str, JudgeCard]
"""judge's name -> its card, of those whose weights are here."""
NO_REFERENCE = ("base", "others")
"""What a set may be compared with that is no reference set."""


def metric_problems(
    document: Document, metrics: Mapping[int, MetricSpec], cards: Cards, headline: Headline | None, watch: Watch | None = None
) -> list[Problem]:
    """What is wrong with a suite's metrics.

    Args:
        document: the suite's file.
        metrics: by their number in it.
        cards: of the judges; what needs the card of another one is left out.
        headline: None if it must not be checked, e.g. because not every metric of the file could be read.
        watch: what the suite watches, if anything.
    """
    made: list[tuple[int, Quantity]] = []
    problems: list[Problem] = []
    complete = True
    for i, spec in metrics.items():
        if spec.metric not in METRICS.names():
            complete = False
            continue
        try:
            kind: type[Quantity] = METRICS.load(spec.metric)
            specs = spelled_out(spec)
        except ConceptBenchError as error:
            problems.append(document.problem(("metrics", i), error.message))
            complete = False
            continue
        problems += _judge_problems(document, i, specs[0], kind, cards)
        limited = limit_problem(kind, spec)
        problems += [document.problem(("metrics", i, "concepts"), limited)] if limited else []
        unwatched = watch_problem(kind, spec, watch)
        problems += [document.problem(("metrics", i), unwatched)] if unwatched else []
        for one in specs:
            metric, found = _made(document, i, one, kind, cards)
            problems += found
            complete = complete and metric is not None
            made += [] if metric is None else [(i, metric)]
    problems += [*_twice(document, made), *_references(document, made)]
    if complete:
        problems += _named(document, headline, made)
    return problems


def _made(document: Document, i: int, spec: MetricSpec, kind: type[Quantity], cards: Cards) -> tuple[Quantity | None, list[Problem]]:
    """A metric as the suite asks for it, or what is wrong with its options."""
    try:
        config = kind.Config.model_validate(spec.options)
    except ValidationError as error:
        found = messages(kind.Config, error)
        return None, [document.problem(("metrics", i, "options", *place), f"option of metric {spec.metric!r}: {text}") for place, text in found]
    card = cards.get(spec.judge or "")
    if card is not None and card.role != kind.role:
        return None, []  # that is said already
    try:
        # without weights a stand-in card serves: a metric's id is made of its options
        return kind(config, card or JudgeCard(spec.judge or "", "features", "", "", "", "", {})), []
    except ConceptBenchError as error:
        if card is None and kind.role:
            return None, []  # the stand-in knows no labels
        return None, [document.problem(("metrics", i, "options"), f"option of metric {spec.metric!r}: {error.message}")]


def _named(document: Document, headline: Headline | None, made: Iterable[tuple[int, Quantity]]) -> list[Problem]:
    """Headline metrics and sources of derived metrics that do not exist, or exist under several protocols."""
    every = list(made)
    protocols = [m.protocol for _, m in every if isinstance(m, OfImages)]
    asked: list[tuple[Location, Callable[[], str]]] = [
        (("headline", end), functools.partial(protocol_of_headline, name, protocols)) for end, name in headline or ()
    ]
    for i, metric in every:
        if isinstance(metric, DerivedMetric):
            asked += [(("metrics", i), functools.partial(protocol_of_source, metric.id, name, protocols)) for name in metric.sources]
    found = []
    for place, look_up in asked:
        try:
            look_up()
        except ConceptBenchError as error:
            found.append(document.problem(place, f"{error.message} ({error.hint})"))
    return found


def _references(document: Document, made: Iterable[tuple[int, Quantity]]) -> list[Problem]:
    """Reference sets of set metrics that are neither registered nor a folder, and registered ones without a size."""
    found = []
    for i, metric in made:
        if not isinstance(metric, SetMetric) or metric.beside in NO_REFERENCE:
            continue
        place, name = ("metrics", i, "options", "beside"), metric.beside
        if name in REFERENCES.names():
            if metric.reference_size is None:
                found.append(document.problem(place, f"the reference set {name!r} has no size of its own: say how many images with the option n"))
        elif not Path(name).is_dir():
            problem = unknown(document.path, document.line(place), "reference set", name, [*NO_REFERENCE, *REFERENCES.names()])
            found.append(replace(problem, message=f"{problem.message}; or give a folder of images"))
    return found


def limit_problem(kind: type[Quantity], spec: MetricSpec) -> str:
    """What is wrong with the concepts that a metric is limited to: some kinds have no rows by concept. Empty if nothing is."""
    if not spec.concepts or not issubclass(kind, (ErasureMetric, DerivedMetric)):
        return ""
    about = "an erasure as a whole" if issubclass(kind, ErasureMetric) else "what its source metrics are about"
    return f"metric {spec.metric!r} cannot be limited to concepts, because it is about {about}: leave `concepts` out"


def watch_problem(kind: type[Quantity], spec: MetricSpec, watch: Watch | None) -> str:
    """What is wrong with a metric of a watched training: nobody watches, another judge does, or not that text. Empty if nothing is."""
    if not (issubclass(kind, ErasureMetric) and kind.watched):
        return ""
    if watch is None:
        return f"metric {spec.metric!r} reads what is watched in a training, and the suite watches nothing: add `watch: {{judge: {spec.judge or 'NAME'}}}`"
    if spec.judge is not None and spec.judge != watch.judge:
        return f"metric {spec.metric!r} has the judge {spec.judge!r}, and {watch.judge!r} watches: name one in both"
    texts = [one.options["text"] for one in spelled_out(spec) if one.options.get("text")]
    unknown_texts = [str(t) for t in texts if t not in watch.texts]
    return f"metric {spec.metric!r}: {unknown_name('text', unknown_texts[0], watch.texts).message} in `watch`" if unknown_texts else ""


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


def _twice(document: Document, made: Iterable[tuple[int, Quantity]]) -> list[Problem]:
    """Metrics of one protocol: their rows could not be told apart."""
    first: dict[str, int] = {}
    found = []
    for i, metric in made:
        if metric.protocol in first:
            line = document.line(("metrics", first[metric.protocol]))
            found.append(document.problem(("metrics", i), f"metric {metric.id!r} with this judge is in the suite already, in line {line}"))
        first.setdefault(metric.protocol, i)
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
