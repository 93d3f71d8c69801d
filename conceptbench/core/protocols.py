"""Protocols by name: presets of metrics (data, ``metrics/presets/METRIC.yaml``), and what a suite's line about a metric stands for."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from conceptbench.core.documents import check, read_document, refuse
from conceptbench.core.errors import UserInputError, unknown_name
from conceptbench.core.schemas import MetricSpec
from conceptbench.core.strict import Preset as Preset  # also known by this name


def names_of(protocol: str) -> tuple[str, ...]:
    """How a suite may call a metric: by its id, or where that has several protocols by ``id/judge``."""
    name, _, arithmetic = protocol.partition("@")
    judge = arithmetic.rpartition("/")[2] if "/" in arithmetic else ""
    return (name, f"{name}/{judge}") if judge else (name,)


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
