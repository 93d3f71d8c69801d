"""Compares two models image by image: paired differences with intervals and, for rates, an exact test.

A pair is two images of the same task, concept, prompt, number and noise. What has no partner is counted, never dropped silently.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from conceptbench.core.errors import NotComparableError, UserInputError
from conceptbench.core.results import safe_cell
from conceptbench.core.statistics import holm, mcnemar_exact, paired_difference
from conceptbench.engine.groups import ROLES
from conceptbench.engine.records import Record
from conceptbench.engine.sides import Side, differences, label, metric_of, protocol_pairs

ALL = "*"
Values = Mapping[tuple[Any, ...], tuple[Record, float | None]]
"""what a pair shares -> the image and its value under one metric (None: it failed)."""


@dataclass(frozen=True)
class Comparison:
    """One line: two models under one metric on one task, role and concept (``*``: all of the role).

    Attributes:
        a, b: the models, ``eraser:preset``.
        protocol: of both, or ``A | B`` if they differ and were compared by force.
        better: direction that is good; empty if the results do not say.
        value_a, value_b: means over the pairs; the difference a - b with its 95 % interval is of the same pairs.
        pairs, prompts: images compared, and their distinct prompts.
        only_a, only_b: images without a partner; failed: pairs in which one was not scored.
        test: ``mcnemar`` with one image a prompt; ``mcnemar-by-prompt`` with several; empty for what is no rate.
        discordant_a, discordant_b: pairs in which only a, only b is 1; by prompt: prompts in which a, b is 1 more often.
        p, p_holm: the exact p value, and adjusted over all lines with a test.
    """

    task: str
    role: str
    concept: str
    a: str
    b: str
    metric: str
    protocol: str
    better: str
    value_a: float | None
    value_b: float | None
    delta: float | None
    delta_low: float | None
    delta_high: float | None
    ci_kind: str
    pairs: int
    prompts: int
    only_a: int
    only_b: int
    failed: int
    test: str = ""
    discordant_a: int | None = None
    discordant_b: int | None = None
    p: float | None = None
    p_holm: float | None = None


COLUMNS = tuple(f.name for f in fields(Comparison))


# -- comparing -------------------------------------------------------------------------------------------------------
def compare(a: Side, b: Side, *, force: bool = False, each_concept: bool = False) -> tuple[list[Comparison], list[str]]:
    """Every comparison of two sides, and notes on what could not be compared.

    Args:
        a: with one model or, for all models that both have, with none.
        b: what is subtracted, in the same form.
        force: also compare what differs in suite, base, sampler, split, judge or protocol.
        each_concept: beside the line over all concepts of a role, one for each, where there are several.

    Raises:
        NotComparableError: they differ in one of these, or no image of the one has a partner in the other.
        UserInputError: no model is in both.
    """
    notes = differences(a, b)
    if notes and not force:
        raise NotComparableError(
            "these runs are not comparable:\n  " + "\n  ".join(notes), "give runs of the same suite, base and judges; --force compares anyway"
        )
    lines: list[Comparison] = []
    protocols = protocol_pairs(a, b)
    for first, second in _matched(a, b):
        for pair in protocols:
            lines += _lines(a, b, first, second, pair, each_concept=each_concept)
    if not any(line.pairs for line in lines):
        raise NotComparableError(
            "no image of the one has a partner in the other: tasks, prompts, suite seed or row seeds differ", "compare runs of the same prompts and seeds"
        )
    lacking = [f"only in {one.spec}: {p}" for one, other in ((a, b), (b, a)) for p in one.protocols() if metric_of(p) not in map(metric_of, other.protocols())]
    return _adjusted(sorted(lines, key=_order(a))), [*notes, *lacking]


def _matched(a: Side, b: Side) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    if a.wanted is not None and b.wanted is not None:
        return [(a.wanted, b.wanted)]
    both = [m for m in a.models() if m in b.models()]
    if not both:
        there = f"{', '.join(map(label, a.models()))} and {', '.join(map(label, b.models()))}"
        raise UserInputError(f"no model is in both {a.spec} and {b.spec}: {there}", "name one of each: FOLDER:ERASER[:PRESET]")
    return [(m, m) for m in both]


def _order(a: Side) -> Any:
    """By task and metric as in the run, targets first, all concepts before each one, then by name of the models."""
    tasks = list(dict.fromkeys(r.task for rs in a.records.values() for r in rs))
    metrics = [metric_of(p) for p in a.protocols()]
    return lambda c: (
        tasks.index(c.task) if c.task in tasks else len(tasks),
        ROLES.index(c.role),
        metrics.index(c.metric),
        c.concept != ALL,
        c.concept,
        c.a,
        c.b,
    )


def _values(records: Iterable[Record], protocol: str, spec: str) -> dict[tuple[Any, ...], tuple[Record, float | None]]:
    """Images that the metric applies to, by what a pair shares; the prompt's text, too: an edited prompt is no partner."""
    found: dict[tuple[Any, ...], tuple[Record, float | None]] = {}
    for record in records:
        if protocol not in record.values:
            continue
        # images of unknown noise have no partner in another model
        key = (*record.pair, record.role, record.prompt, record.image if record.seed < 0 else "")
        if key in found:
            raise UserInputError(f"{spec}: the image {record.pair} is in records.csv twice", "`conceptbench run` writes it again")
        found[key] = (record, record.values[protocol])
    return found


def _lines(a: Side, b: Side, first: tuple[str, str], second: tuple[str, str], protocols: tuple[str, str], *, each_concept: bool) -> list[Comparison]:
    of_a, of_b = _values(a.records[first], protocols[0], a.spec), _values(b.records[second], protocols[1], b.spec)
    both = [r for r, _ in (*of_a.values(), *of_b.values())]
    rate = a.units.get(protocols[0], "rate") == "rate" and all(v in (0.0, 1.0) for _, v in (*of_a.values(), *of_b.values()) if v is not None)
    lines = []
    for task, role in dict.fromkeys((r.task, r.role) for r in both):
        concepts = list(dict.fromkeys(r.concept for r in both if (r.task, r.role) == (task, role)))
        for concept in (ALL, *(concepts if each_concept and len(concepts) > 1 else ())):
            chosen_a, chosen_b = (
                {k: v for k, v in of.items() if (v[0].task, v[0].role) == (task, role) and concept in (ALL, v[0].concept)} for of in (of_a, of_b)
            )
            measured = _measured(chosen_a, chosen_b, rate=rate)
            lines.append(
                Comparison(
                    task=task,
                    role=role,
                    concept=concept,
                    a=label(first),
                    b=label(second),
                    metric=metric_of(protocols[0]),
                    protocol=" | ".join(dict.fromkeys(protocols)),
                    better=a.better.get((protocols[0], role), ""),
                    **measured,
                )
            )
    return lines


def _measured(a: Values, b: Values, *, rate: bool) -> dict[str, Any]:
    """Counts, means, the paired difference and the test of one group of images."""
    shared = [k for k in a if k in b]
    scored = [(a[k][0].prompt_id, va, vb) for k in shared if (va := a[k][1]) is not None and (vb := b[k][1]) is not None]
    prompts = [p for p, _, _ in scored]
    counts = {
        "pairs": len(scored),
        "prompts": len(set(prompts)),
        "only_a": len(a) - len(shared),
        "only_b": len(b) - len(shared),
        "failed": len(shared) - len(scored),
    }
    if not scored:
        nothing = dict.fromkeys(("value_a", "value_b", "delta", "delta_low", "delta_high"))
        return {**counts, **nothing, "ci_kind": "none: no pair"}
    xs, ys = [x for _, x, _ in scored], [y for _, _, y in scored]
    delta, interval = paired_difference(xs, ys, prompts, rate=rate)
    return {
        **counts,
        "value_a": sum(xs) / len(xs),
        "value_b": sum(ys) / len(ys),
        "delta": delta,
        "delta_low": interval.low if interval else None,
        "delta_high": interval.high if interval else None,
        "ci_kind": interval.kind if interval else "none: one prompt only",
        **(_tested(scored) if rate else {}),
    }


def _tested(scored: Sequence[tuple[str, float, float]]) -> dict[str, Any]:
    """The exact McNemar test.

    It assumes independent pairs, and images of one prompt are not. With several images a prompt each prompt counts once, for
    the model that has more ones in it, and prompts in which both have as many for neither: the exact sign test, which is
    McNemar's when there is one image a prompt.
    """
    gaps: dict[str, float] = {}
    for prompt, x, y in scored:
        gaps[prompt] = gaps.get(prompt, 0.0) + x - y
    up, down = sum(g > 0 for g in gaps.values()), sum(g < 0 for g in gaps.values())
    name = "mcnemar" if len(gaps) == len(scored) else "mcnemar-by-prompt"
    return {"test": name, "discordant_a": up, "discordant_b": down, "p": mcnemar_exact(up, down)}


def _adjusted(lines: list[Comparison]) -> list[Comparison]:
    """With Holm's p values over all lines that have a test."""
    tested = [i for i, line in enumerate(lines) if line.p is not None]
    adjusted = dict(zip(tested, holm([p for line in lines if (p := line.p) is not None]), strict=True))
    return [replace(line, p_holm=adjusted[i]) if i in adjusted else line for i, line in enumerate(lines)]


def to_csv(lines: Sequence[Comparison]) -> str:
    """Tidy CSV: one comparison a row, the columns of :class:`Comparison`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        writer.writerow([safe_cell(v) for v in asdict(line).values()])
    return out.getvalue()
