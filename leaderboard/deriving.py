"""Result rows derived again from evidence, by the code that made them: only the judges' answers come from files."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from conceptbench.core.choosing import cut_to
from conceptbench.core.metric import Metric
from conceptbench.core.results import ResultRow
from conceptbench.core.schemas import Suite, Task
from conceptbench.engine.groups import row_roles
from conceptbench.engine.images import BASE, FLOOR, ImageSpec
from conceptbench.engine.judging import judge_key
from conceptbench.engine.measures import Measure, Measures
from conceptbench.engine.plan import Plan
from conceptbench.engine.records import Record, read_records
from conceptbench.engine.scoring import TaskScores, Values
from conceptbench.engine.seen import Model, TextBook
from conceptbench.engine.splits import split_rows
from conceptbench.engine.store import Store
from conceptbench.leaderboard.evidence import IMAGES, RECORDS, TEXTS, KeptReferences, by_model, measures_of, read_probes
from conceptbench.leaderboard.manifest import RunPart
from conceptbench.models.probe import Probe, Probed

Place = tuple[str, str, int]
Pair = tuple[str, str]
EXTRA = ("train_seed", "erasure_sha256", "plugin_sha256", "erase_seconds", "peak_memory_mb", "network_evaluations", "size_bytes")
"""Fields of a model's rows that no evidence gives: what was declared once for the model is expected in all of its rows."""
WEIGHTS = "measured on the weights or the machine, which are not part of a submission"


@dataclass
class RecordedScores(TaskScores):
    """A task's images, with the values that records give them.

    Attributes:
        records: (eraser, preset) -> place of an image -> its record.
    """

    records: Mapping[Pair, Mapping[Place, Record]] = field(default_factory=dict)

    def values_of(self, measure: Measure[Metric], chosen: Sequence[ImageSpec], model: Model, keys: Mapping[int, str]) -> Values:
        """A metric's values on a model's images, from the records.

        A record has no value of an image that is not made yet, and none of one that does not count; a metric that counts every
        image has only the first kind.
        """
        own, metric = self.records.get((model.eraser, model.preset), {}), measure.metric
        selective = type(metric).counts is not Metric.counts
        values: list[float | None] = []
        heard, counted = [], []
        for spec in chosen:
            record = own.get((spec.concept, spec.prompt_id, spec.number))
            known = record is not None and metric.protocol in record.values
            outside = not known and selective and record is not None and bool(record.image)
            values.append(record.values[metric.protocol] if known and record is not None else None)
            heard.append(known or outside)
            counted.append(not outside)
        return Values(values, heard, counted)


@dataclass
class Derived:
    """What evidence gives.

    Attributes:
        rows: those that can be derived again.
        without: protocol -> why its rows cannot.
        problems: of the records, in words.
    """

    rows: list[ResultRow] = field(default_factory=list)
    without: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def derive(plan: Plan, part: RunPart, folder: Path, declared: Mapping[tuple[str, str, str], ResultRow], absent: Collection[str] = ()) -> Derived:
    """The rows of a run from its evidence.

    Args:
        plan: suite and images, as they are installed here.
        part: the run, from the manifest.
        folder: of its evidence.
        declared: (task, eraser, preset) -> a row of that model, for what no evidence gives (:data:`EXTRA`).
        absent: protocols of rows of which the manifest says that there is no evidence.

    Raises:
        UserInputError: evidence is missing or damaged.
    """
    cards = part.cards()
    store = Store(folder)
    texts = {n: {t: a["embedding"] for t, a in store.read_judged(judge_key(c), TEXTS).items()} for n, c in cards.items() if c.role == "image-text"}
    measures = measures_of(plan.suite, cards, texts)
    wrong = [f"the manifest says that {p} has no evidence, and records always give it" for p in _never_absent(measures, absent)]
    left = tuple(m for m in measures.sets if m.metric.protocol not in {plain_protocol(p) for p in absent})
    measures = replace(measures, sets=left)
    found = Derived(without=without_evidence(measures), problems=wrong)
    records = by_model(list(read_records(folder / RECORDS)))
    probes = read_probes(folder)
    heard = {n: store.read_judged(judge_key(cards[n]), IMAGES) for n in dict.fromkeys(m.judge for m in measures.sets if m.judge)}
    references = KeptReferences(measures.judges, store, part.references)
    book = TextBook(measures.judges)
    common = {
        "base": part.base,
        "status": "development" if plan.development else "limited" if plan.limited else "ok",
        "suite_sha256": plan.content_key(),
        "base_sha256": part.base_sha256,
    }
    every = []
    for task in plan.suite.tasks:
        own = records.get(task.id, {})
        specs = list(plan.images[task.id])
        found.problems += _record_problems(task, specs, own)
        if (BASE, "") not in own:
            continue
        scores = RecordedScores(plan.suite, task, specs, measures, common, book, references, records=own)
        for pair in sorted(own, key=lambda p: p != (BASE, "")):  # the others are compared with the base
            model = _model(task, pair, own[pair], heard, probes, declared)
            rows, _ = scores.score(model, is_base=pair == (BASE, ""), paired=all(r.seed != -1 for r in own[pair].values()))
            found.rows += rows
        every.append(scores)
    if len(every) == len(plan.suite.tasks):
        found.rows += split_rows(every, plan.suite, {})
    found.rows = [r for r in found.rows if r.protocol not in found.without]
    return found


def plain_protocol(protocol: str) -> str:
    """A row's protocol as its metric has it: without the digest of a folder of reference images (``fid@...~1a2b3c4d/judge``)."""
    return re.sub(r"~[0-9a-f]{8}(?=/)", "", protocol, count=1)


def probe_protocols(probe: Probe) -> list[str]:
    """The protocols of a probe's rows: its own, and one a part."""
    return [probe.protocol, *(probe.protocol.replace(probe.id, f"{probe.id}-{part}", 1) for part in probe.parts)]


def _never_absent(measures: Measures, absent: Collection[str]) -> list[str]:
    """Protocols of which evidence is said to be missing, although records always give them."""
    may = {m.metric.protocol for m in measures.sets} | {p for m in measures.probes for p in probe_protocols(m.metric)} | set(without_evidence(measures))
    return [p for p in absent if plain_protocol(p) not in may]


def without_evidence(measures: Measures) -> dict[str, str]:
    """Protocols of which a submission never holds evidence, and why."""
    return {m.protocol: WEIGHTS for m in measures.erasures}


def _model(
    task: Task,
    pair: Pair,
    records: Mapping[Place, Record],
    heard: Mapping[str, Any],
    probes: Mapping[tuple[str, str], Mapping[tuple[str, str], Probed]],
    declared: Mapping[tuple[str, str, str], ResultRow],
) -> Model:
    """A model as its records show it."""
    row = declared.get((task.id, *pair))
    extra = {name: getattr(row, name) for name in EXTRA} if row is not None else {"train_seed": None}
    weights = str(extra.get("erasure_sha256") or "")
    known = {place: r.image for place, r in records.items()}
    return Model(
        *pair,
        key_of=lambda s: known.get((s.concept, s.prompt_id, s.number), ""),
        heard=heard,
        extra=extra,
        whole=bool(weights),
        probed=probes.get((task.id, BASE if pair[0] == BASE else weights), {}),
    )


def _record_problems(task: Task, specs: Sequence[ImageSpec], own: Mapping[Pair, Mapping[Place, Record]]) -> list[str]:
    """Records that a model lacks, has too many, or that are not about the suite's image."""
    if (BASE, "") not in own:
        return [f"task {task.id}: no records of the base, which every model is compared with"]
    roles = row_roles(task)
    wanted = {(s.concept, s.prompt_id, s.number): s for s in specs}
    found = []
    for (eraser, preset), records in own.items():
        model = f"task {task.id}, {eraser}{':' if preset else ''}{preset}"
        missing, strange = [p for p in wanted if p not in records], [p for p in records if p not in wanted]
        if missing:
            found.append(f"{model}: {len(missing)} of {len(wanted)} images have no record, e.g. {_shown(missing[0])}")
        if strange:
            found.append(f"{model}: {len(strange)} records of images that the suite has not, e.g. {_shown(strange[0])}")
        for place, spec in wanted.items():
            record = records.get(place)
            if record is not None and not (record.seed in (spec.seed, -1) or eraser.startswith(FLOOR)):
                found.append(f"{model}: image {_shown(place)} has seed {record.seed}, and the suite {spec.seed}")
            role = roles.get(spec.concept, spec.role)
            if record is not None and (record.prompt, record.role) != (spec.condition.text, role):
                found.append(f"{model}: image {_shown(place)} is {record.role} {record.prompt!r}, and the suite's is {role} {spec.condition.text!r}")
    return found


def _shown(place: Place) -> str:
    concept, prompt, number = place
    return f"{concept} {prompt} number {number}"


def installed_suite(part: RunPart, suite: Suite) -> Suite:
    """The installed suite cut to the tasks of a run.

    Raises:
        UserInputError: it has no such task.
    """
    if part.suite.tasks == tuple(t.id for t in suite.tasks):
        return suite
    return cut_to(suite, part.suite.tasks)[0]
