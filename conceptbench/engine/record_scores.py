"""Aggregates of per-image records that other tools made, by the same metrics and the same statistics as images of this harness."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from conceptbench.core.files import sha256_file
from conceptbench.core.metric import Asked, Metric
from conceptbench.core.results import Estimate, ResultRow
from conceptbench.core.schemas import Concept, Headline, Kind, MetricSpec, PromptSource, Sampler, Suite, Task
from conceptbench.engine.foreign_classes import NAMED, Classes, classes_among, labels_of_concepts
from conceptbench.engine.foreign_records import ForeignFile, ForeignRecord, partners
from conceptbench.engine.foreign_tables import SHOWN, is_missing
from conceptbench.engine.groups import ALL, Group, groups_of
from conceptbench.engine.images import BASE, ImageSpec
from conceptbench.engine.record_answers import Answers, answers_of
from conceptbench.engine.record_metrics import UNKNOWN, Request, cards_of, metrics_of
from conceptbench.engine.records import Record
from conceptbench.engine.rows import NOTHING, RowMaker
from conceptbench.engine.scoring import Values, difference_of, estimate_of
from conceptbench.engine.seen import Model
from conceptbench.models.conditions import Condition

SUITE, PRESET = "records", "records"
KINDS: Mapping[str, Kind] = {"detector": "explicit", "faces": "identity"}


@dataclass
class Result:
    """Rows, the records of every image, and what there is to know about them."""

    rows: list[ResultRow] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _classes(files: Sequence[ForeignFile], request: Request, notes: list[str]) -> tuple[Classes | None, dict[str, str]]:
    """The classes of the answers, and the label of each concept."""
    if not files[0].has("top"):
        return None, {}
    answers = [a for f in files for r in f.records for a in r.top if not is_missing(a)]
    judge = request.judges.get("top", request.judges.get("", ""))
    classes, strangers = classes_among(answers, request.labels.values(), strict=judge.startswith("resnet50"))
    if classes.head == NAMED:
        few = ", ".join(map(repr, strangers[:SHOWN]))
        notes.append(f"{len(strangers)} class names are not ImageNet's ({few}): among how many classes the classifier chose is not known")
    by_index = all(a.isdecimal() for a in answers)
    return classes, labels_of_concepts(files[0].concepts(), classes, request.labels, by_index=by_index)


# -- rows ------------------------------------------------------------------------------------------------------------
@dataclass
class _Task:
    """The images of a file and of the base's, and their values."""

    file: ForeignFile
    answers: Answers
    base: Answers | None
    place: Sequence[int]  # of each image's partner in the base's file
    labels: Mapping[str, str]
    classes: Classes | None
    concepts: dict[tuple[str, str], Concept] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.specs = [ImageSpec(self.file.path.stem, r.concept, r.role, r.cluster, r.number, Condition(r.prompt), -1, Sampler()) for r in self.file.records]

    def asked(self, metric: Metric, r: ForeignRecord) -> Asked:
        """What an image was asked to show."""
        return Asked(self.concept(metric.role, r.concept), r.role, r.cluster, r.prompt, content=r.prompt or UNKNOWN)

    def concept(self, role: str, name: str) -> Concept:
        """A concept as metrics of a judge's role want it: of the kind that they are about, with its labels."""
        if (role, name) not in self.concepts:
            labels = tuple(filter(None, (self.labels.get(name), f"identity/{name}")))
            self.concepts[role, name] = Concept(name=name, kind=KINDS.get(role, "object"), phrases=(name,), labels=labels)
        return self.concepts[role, name]

    def values(self, metric: Metric, answers: Answers, of: Sequence[int], chosen: Sequence[int]) -> Values:
        """A metric's values on the chosen images, from the rows ``of`` a file."""
        values: list[float | None] = []
        counted = []
        for i in chosen:
            image = answers.scored(metric, of[i], self.asked(metric, self.file.records[i]))
            counted.append(image is None or metric.counts(image))
            value = metric.value(image) if image is not None and counted[-1] else None
            values.append(value if value is None or math.isfinite(value) else None)
        return Values(values, [True] * len(values), counted)


def score_records(file: ForeignFile, request: Request, base: ForeignFile | None = None) -> Result:
    """The rows and records of a file's images, and of the base's beside them.

    Args:
        file: the images.
        request: what to make of them.
        base: the unmodified model's images of the same prompts and noise, for paired differences.

    Raises:
        UserInputError: cells are not what their role says, a concept has no class, an image has no partner, or a metric needs
            more than the columns hold.
    """
    result = Result()
    of_base = [] if base is None else partners(file, base)
    classes, labels = _classes([file] if base is None else [file, base], request, result.notes)
    cards = cards_of(file, request, classes)
    metrics = metrics_of(file, request, cards)
    mine = answers_of(file, cards, classes, separator=request.separator, scale=request.scale)
    theirs = None if base is None else answers_of(base, cards, classes, separator=request.separator, scale=request.scale)
    lines = {r.line: i for i, r in enumerate(base.records)} if base is not None else {}
    task = _Task(file, mine, theirs, [lines[r.line] for r in of_base], labels, classes)
    _score(task, metrics, request, result)
    result.notes += _notes(file, mine, theirs, metrics, request)
    return result


def _score(task: _Task, metrics: Sequence[Metric], request: Request, result: Result) -> None:
    everyone = range(len(task.specs))
    maker = _maker(task, metrics)
    model, base = (Model(n, PRESET, lambda _: "", {}, {"train_seed": None}, whole=False) for n in (request.name, BASE))
    of_model: list[dict[str, float | None]] = [{} for _ in everyone]
    of_base: list[dict[str, float | None]] = [{} for _ in everyone]
    for metric in metrics:
        rows: list[ResultRow] = []
        chosen = [i for i in everyone if metric.applies(task.asked(metric, task.file.records[i]).concept, task.specs[i].role)]
        if not chosen and request.metrics:
            result.notes.append(f"{metric.id} applies to none of the images: is anything erased, or kept?")
        paired = task.base is not None and metric.needs == "images"
        mine = task.values(metric, task.answers, everyone, chosen)
        theirs = task.values(metric, task.base, task.place, chosen) if task.base is not None and paired else None
        for j, i in enumerate(chosen):
            of_model[i].update({protocol_of(metric, task.classes): mine.of[j]} if mine.counted[j] else {})
            of_base[i].update({protocol_of(metric, task.classes): theirs.of[j]} if theirs is not None and theirs.counted[j] else {})
        for group in groups_of([task.specs[i] for i in chosen], {}):
            if rows and rows[0].concept == ALL != group.concept and len(group.images) == rows[0].n_planned:  # the only concept of the role
                result.rows += [r.model_copy(update={"concept": group.concept}) for r in rows]
                continue
            at = [task.file.records[chosen[j]].line for j, _ in group.images]
            own = _with_lines(estimate_of(metric, group, mine), group, mine, at)
            other = None if theirs is None else estimate_of(metric, group, theirs)
            delta = NOTHING if theirs is None else difference_of(metric, group, mine, theirs)
            value = None if other is None else other.value
            rows = [maker.row(metric, model, group.role, group.concept, own, base=value, delta=delta, partial=own.failed > 0)]
            rows += [] if other is None else [maker.row(metric, base, group.role, group.concept, other, base=value, partial=other.failed > 0)]
            rows = [r.model_copy(update={"protocol": protocol_of(metric, task.classes)}) for r in rows]
            result.rows += rows
    for name, values in ((request.name, of_model), (BASE, of_base)) if task.base is not None else ((request.name, of_model),):
        result.records += [
            Record(s.task, s.role, s.concept, name, PRESET, s.prompt_id, s.number, -1, s.condition.text, r.image, own)
            for s, r, own in zip(task.specs, task.file.records, values, strict=True)
        ]


def protocol_of(metric: Metric, classes: Classes | None) -> str:
    """A metric's protocol; where the records name only some of a classifier's classes, it does not say of how many."""
    if metric.role != "classifier" or classes is None or classes.head != NAMED:
        return metric.protocol
    return metric.protocol.replace(f"of-{len(classes.labels)}way", "of-unknown-way")


def _with_lines(estimate: Estimate, group: Group, values: Values, lines: Sequence[int]) -> Estimate:
    """The estimate with the lines of what failed."""
    failed = [line for (j, _), line in zip(group.images, lines, strict=True) if values.counted[j] and values.of[j] is None]
    if not failed:
        return estimate
    reason = f"no value in {_lines(failed)}"
    return estimate.model_copy(update={"reason": f"{estimate.reason}; {reason}" if estimate.reason else reason})


def _lines(lines: Sequence[int]) -> str:
    return f"line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines[:SHOWN]))}" + (" ..." if len(lines) > SHOWN else "")


def _maker(task: _Task, metrics: Sequence[Metric]) -> RowMaker:
    targets, kept = (tuple(c for c in task.file.concepts() if any(s.concept == c and s.role == role for s in task.specs)) for role in ("target", "retained"))
    only = tuple(c for c in kept if c not in targets)
    own = Task(id=task.file.path.stem, targets=targets or only, retained=only if targets else (), prompts=PromptSource(set=SUITE))
    specs = tuple(MetricSpec(metric=m.name) for m in metrics)
    shape = {"title": "Records made elsewhere", "base": UNKNOWN, "sampler": Sampler(), "seed": 0, "concepts": SUITE, "headline": Headline(erased="", kept="")}
    suite = Suite.model_validate({"name": SUITE, "version": "0.0", "tasks": (own,), "metrics": specs, **shape})
    common = {"base": UNKNOWN, "status": "ok", "suite_sha256": sha256_file(task.file.path)}
    return RowMaker(suite, own.id, common | ({} if task.base is None else {"base_sha256": sha256_file(task.base.file.path)}))


def _notes(file: ForeignFile, mine: Answers, theirs: Answers | None, metrics: Sequence[Metric], request: Request) -> list[str]:
    """What else must be known of the numbers."""
    found = [f"intervals are by {'prompt' if file.clustered != 'row' else 'row: no prompt is mapped'}"]
    for answers in (mine, theirs) if theirs is not None else (mine,):
        of = f"{len(answers.file.records)} images of {answers.file.path.name}"
        found += [f"{role}: {len(lines)} of {of} failed, {_lines(lines)}" for role, lines in answers.failed.items()]
    scores = [float(d[:, 0].min()) for d in mine.detections if d is not None and len(d)]
    limits = [m.config.threshold for m in metrics if m.role == "detector"]  # type: ignore[attr-defined] # all detectors' metrics have it
    if scores and limits and (file.has("scores") or file.has("detections")) and min(scores) > min(limits):
        found.append(f"no detection scores below {min(scores):.3g}: if the tool dropped those, numbers at lower thresholds are too small")
    if file.has("labels") and not file.has("scores"):
        found.append(f"labels without scores: all are taken as found above {request.threshold:g}")
    return found
