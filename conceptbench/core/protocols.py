"""Protocols by name: presets of metrics (data, ``metrics/presets/METRIC.yaml``), and what a suite's line about a metric stands for."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from conceptbench.core.documents import check, read_document, refuse
from conceptbench.core.errors import NotComparableError, UserInputError, unknown_name
from conceptbench.core.schemas import MetricSpec
from conceptbench.core.strict import Preset as Preset  # also known by this name


def names_of(protocol: str) -> tuple[str, ...]:
    """How a suite may call a metric: by its id, or where that has several protocols by ``id/judge``.

    A judge that the suite trains is called by its name alone, although its protocols have a hash behind it (``styles~1a2b3c4d``).
    """
    name, _, arithmetic = protocol.partition("@")
    judge = arithmetic.rpartition("/")[2].partition("~")[0] if "/" in arithmetic else ""
    return (name, f"{name}/{judge}") if judge else (name,)


def by_name(protocols: Iterable[str]) -> dict[str, list[str]]:
    """Name as :func:`names_of` gives it -> the protocols that it may mean, each once."""
    found: dict[str, list[str]] = {}
    for protocol in dict.fromkeys(protocols):
        for name in names_of(protocol):
            found.setdefault(name, []).append(protocol)
    return found


def protocol_of_headline(name: str, protocols: Iterable[str]) -> str:
    """The protocol that a headline's id means.

    Raises:
        UserInputError: there is none, or a judge is named, too: tables look the headline up by its id alone.
        NotComparableError: there are several.
    """
    every = list(protocols)
    named, ids = by_name(every), {p.partition("@")[0] for p in every}
    if name not in ids and "/" in name:
        usable = ", ".join(sorted(i for i in ids if len(named[i]) == 1)) or "there is none"
        raise UserInputError(
            f"the headline metric {name!r} is given as ID/JUDGE, and a headline takes a metric's id alone", f"ids with one protocol in this suite: {usable}"
        )
    return _the_one("headline metric", name, {i: named[i] for i in ids}, "keep one of them in this suite")


def protocol_of_source(derived: str, name: str, protocols: Iterable[str]) -> str:
    """The protocol that a source of a derived metric (its id) means.

    Raises:
        UserInputError: there is none.
        NotComparableError: there are several.
    """
    advice = "keep one of them in this suite, or name the source as ID/JUDGE"
    return _the_one(f"metric that {derived} is made of", name, by_name(protocols), advice)


def _the_one(what: str, name: str, named: Mapping[str, Sequence[str]], advice: str) -> str:
    if name not in named:
        raise unknown_name(what, name, named)
    if len(named[name]) > 1:
        raise NotComparableError(f"the {what} {name!r} has {len(named[name])} protocols: {', '.join(named[name])}", f"they are different numbers: {advice}")
    return named[name][0]


@functools.cache
def presets_of(metric: str) -> dict[str, Preset]:
    """The presets of a metric by name, the recommended one first; none for a metric without a file.

    Raises:
        UserInputError: the file is wrong.
    """
    path = Path(str(files("conceptbench.metrics"))) / "presets" / f"{metric}.yaml"
    if not path.is_file():
        return {}
    document = read_document(path)
    refuse(document.problems, "")
    found = {}
    for name, value in (document.value or {}).items():
        preset, problems = check(Preset, value, document, (name,), f"preset {name!r}: ")
        refuse(problems)
        assert preset is not None
        found[str(name)] = preset
    return found


def spelled_out(spec: MetricSpec) -> list[MetricSpec]:
    """The metrics that a line of a suite stands for: its preset put in, one for each combination of ``each``.

    Raises:
        UserInputError: there is no such preset, or an option is in ``options`` and in ``each``.
    """
    judge, options = spec.judge, dict(spec.options)
    if spec.preset is not None:
        presets = presets_of(spec.metric)
        if spec.preset not in presets:
            raise unknown_name(f"preset of metric {spec.metric!r}", spec.preset, presets, f"conceptbench show metric {spec.metric}")
        judge = judge or presets[spec.preset].judge
        options = {**presets[spec.preset].options, **options}
    twice = sorted(set(spec.each) & set(spec.options))
    if twice:
        raise UserInputError(f"metric {spec.metric!r}: {', '.join(twice)} stands in `options` and in `each`", "keep one of them")
    empty = sorted(name for name, values in spec.each.items() if not values)
    if empty:
        raise UserInputError(f"metric {spec.metric!r}: `each` has no value for {', '.join(empty)}", "list the values, or leave it out")
    combinations = itertools.product(*spec.each.values())
    every = [{**options, **dict(zip(spec.each, values, strict=True))} for values in combinations]
    return [MetricSpec(metric=spec.metric, judge=judge, options=one, concepts=spec.concepts) for one in every]


def every_metric(specs: Sequence[MetricSpec]) -> list[MetricSpec]:
    """All metrics that a suite's lines stand for, in their order."""
    return [one for spec in specs for one in spelled_out(spec)]
