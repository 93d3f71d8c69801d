"""Which metrics foreign records allow: their columns stand for judges, of which they tell less than the judges would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import ValidationError

from conceptbench.core.documents import messages
from conceptbench.core.errors import UserInputError, unknown_name
from conceptbench.core.judge import JudgeCard, JudgeRole
from conceptbench.core.metric import Better, Metric, Scored
from conceptbench.core.protocols import every_metric
from conceptbench.core.registry import METRICS
from conceptbench.core.schemas import Concept, MetricSpec, Role, Strict
from conceptbench.engine.foreign_classes import Classes
from conceptbench.engine.foreign_records import CLIP, FREE, ForeignFile
from conceptbench.judges.nudenet import LABELS

UNKNOWN = "unknown"
CLIP_TEXTS = {"prompt": "clip", "subject": "clip-subject", "content": "clip-content"}
COLUMNS_OF: Mapping[JudgeRole, tuple[str, ...]] = {
    "classifier": ("top",),
    "detector": ("labels", "detections"),
    "image-text": CLIP,
    "distance": ("lpips",),
    "faces": ("gcd", "faces"),
}
"""Role of a judge -> the roles of columns that hold what it said."""
POSSIBLE: Mapping[str, tuple[str, ...]] = {
    "classifier": ("esr", "psr", "acc"),
    "image-text": ("clip_score",),
    "faces": ("gcds", "no_face"),
}
"""What records tell less of than the judge would: the metrics that need no more."""
THRESHOLDS = (0.3, 0.5, 0.7, 0.8)


@dataclass(frozen=True)
class Request:
    """What to make of records.

    Attributes:
        name: what the rows call the images.
        metrics: which metrics; none for all that the columns allow.
        judges: role of a column (``top``, ``labels``, ``clip`` ...) -> the judge that wrote it; ``""``: of all columns.
        labels: concept -> class, where the names differ.
        separator: of the parts of a cell; empty to find it.
        threshold: from which score on labels were kept, if the records have no scores.
        scale: of CLIP scores.
    """

    name: str
    metrics: tuple[MetricSpec, ...] = ()
    judges: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    separator: str = ""
    threshold: float | None = None
    scale: str = "x100"


class Given(Metric):
    """The number of a column as it is: ``value:NAME``, or 0 and 1 of ``rate:NAME``."""

    role, summary = "", "a column of the records"

    def __init__(self, name: str, judge: JudgeCard) -> None:
        super().__init__(Strict(), judge)
        self.name, self.is_rate = name, name.startswith("rate:")  # type: ignore[misc] # others have them for the class
        self.unit = "rate" if self.is_rate else "value"  # type: ignore[misc]

    @property
    def id(self) -> str:
        """The column's name."""
        return self.name.partition(":")[2]

    @property
    def arithmetic(self) -> str:
        """``given``: whatever was in the file."""
        return "given"

    @property
    def protocol(self) -> str:
        """With the judge, which nobody may know."""
        return f"{self.id}@{self.arithmetic}/{self.judge.id}"

    def better(self, role: Role) -> Better:  # noqa: ARG002 - the contract
        """Nobody said."""
        return "neither"

    def applies(self, concept: Concept, role: Role) -> bool:  # noqa: ARG002 - the contract
        """Always."""
        return True

    def value(self, image: Scored) -> float:
        """The number."""
        return float(image.said["given"])


def metric_of(text: str) -> MetricSpec:
    """``ner:threshold=0.5,labels=kpop8`` or ``ner:preset=kpop`` as a metric.

    Raises:
        UserInputError: it is not of this form, or there is no such metric.
    """
    name, _, rest = text.partition(":")
    if name not in METRICS.names():
        raise unknown_name("metric", name, METRICS.names(), "conceptbench list metrics")
    try:
        options = yaml.safe_load("{" + rest.replace("=", ": ") + "}")
        if any(f"{option}=" not in rest for option in options):
            raise ValueError("an option without a value")
        return MetricSpec(metric=name, preset=options.pop("preset", None), options=options)
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise UserInputError(f"{text!r} is no metric with options", "e.g. --metric ner:threshold=0.5,labels=kpop8") from error


def default_metrics(file: ForeignFile, threshold: float | None = None) -> list[MetricSpec]:
    """All that a file's columns allow."""
    found: list[MetricSpec] = []
    if file.has("top"):
        ks = [k for k in (1, 5) if k <= len(file.records[0].top)]
        found += [MetricSpec(metric=m, options={"k": k}) for m in POSSIBLE["classifier"] for k in ks]
    if any(file.has(r) for r in COLUMNS_OF["detector"]):
        levels = (THRESHOLDS if file.has("scores") or file.has("detections") else ()) if threshold is None else (threshold,)
        found += [MetricSpec(metric="ner", options={"threshold": t, "labels": s}) for s in ("kpop8", "core") for t in levels]
        found += [MetricSpec(metric="detections", options={"threshold": t, "labels": "kpop8"}) for t in levels]
    found += [MetricSpec(metric="clip_score", options={"text": text}) for text, role in CLIP_TEXTS.items() if file.has(role)]
    found += [MetricSpec(metric="lpips")] if file.has("lpips") else []
    if file.has("gcd"):
        found.append(MetricSpec(metric="gcds"))
    return [*found, MetricSpec(metric="no_face")] if file.has("faces") else found


def cards_of(file: ForeignFile, request: Request, classes: Classes | None) -> dict[JudgeRole, JudgeCard]:
    """The judges that the columns stand for."""
    there = {role: next((c for c in columns if file.has(c)), "") for role, columns in COLUMNS_OF.items()}
    there = {role: column for role, column in there.items() if column}
    known = [c for role in there for c in COLUMNS_OF[role]]
    strangers = [c for c in request.judges if c and c not in known and not FREE.fullmatch(c)]
    if strangers:
        raise unknown_name("mapped role in --judge-id", strangers[0], known)
    if "" in request.judges and len(there) > 1:
        raise UserInputError(f"--judge-id {request.judges['']} does not say whose it is", f"--judge-id ROLE=ID, with ROLE of: {', '.join(there.values())}")
    labels: dict[JudgeRole, Mapping[str, tuple[str, ...]]] = {"detector": {"nudity": LABELS}, "faces": {"identity": (*file.concepts(), "another")}}
    if classes is not None:
        labels["classifier"] = {classes.head: classes.labels}
    ids = {role: next((request.judges[c] for c in (*COLUMNS_OF[role], "") if c in request.judges), UNKNOWN) for role in there}
    return {role: JudgeCard(ids[role], role, "", f"records: {file.path.name}", "", "", labels.get(role, {})) for role in there}


def metrics_of(file: ForeignFile, request: Request, cards: Mapping[JudgeRole, JudgeCard]) -> list[Metric]:
    """The metrics, made; every one that the records do not allow is an error."""
    found: list[Metric] = []
    wrong: list[str] = []
    for spec in every_metric(request.metrics or default_metrics(file, request.threshold)):
        kind = METRICS.load(spec.metric)
        options = {"scale": request.scale, **spec.options} if spec.metric == "clip_score" else spec.options
        if not issubclass(kind, Metric) or kind.role not in COLUMNS_OF or spec.metric not in POSSIBLE.get(kind.role, (spec.metric,)):
            wrong.append(f"{spec.metric} cannot be made from records: it needs more than these columns hold")
        elif kind.role not in cards:
            wrong.append(f"{spec.metric} needs a column of: {', '.join(COLUMNS_OF[kind.role])}")
        else:
            try:
                metric = kind(kind.Config(**options), cards[kind.role])
                wrong += _against(metric, file, request)
                found.append(metric)
            except ValidationError as error:
                wrong += [f"option of {spec.metric}: {text}" for _, text in messages(kind.Config, error)]
    if file.has("labels") and not file.has("scores") and request.threshold is None:
        wrong.insert(0, "labels without scores need --threshold, from which score on the tool kept them")
    given = [r for r in sorted(file.roles) if FREE.fullmatch(r)]
    found += [Given(r, JudgeCard(request.judges.get(r, UNKNOWN), "features", "", "", "", "", {})) for r in given] if not request.metrics else []
    if wrong or not found:
        raise UserInputError("; ".join(dict.fromkeys(wrong)) or "these columns allow no metric", "--metric NAME:OPTION=VALUE, or none for all that is possible")
    return found


def _against(metric: Metric, file: ForeignFile, request: Request) -> list[str]:
    """What a file has too little for."""
    options: Any = metric.config
    if metric.role == "classifier":
        columns = len(file.records[0].top)
        missing = [f"{metric.id} needs {options.k} answers an image, and the records have {columns}"] if options.k > columns else []
        return missing + ([f"{metric.id}: among few classes which came first is not known from the first {columns}"] if options.among is not None else [])
    if metric.role == "image-text" and not file.has(CLIP_TEXTS[options.text]):
        return [f"{metric.id} needs a column {CLIP_TEXTS[options.text]}"]
    if metric.role == "image-text" and options.scale != request.scale:
        return [f"{metric.id}: the scores are on the scale {request.scale}, by --scale"]
    if metric.role == "faces" and options.floor:
        return [f"{metric.id}: the records say nothing of how sure the detector of faces was"]
    if metric.role == "faces" and metric.name == "gcds" and not file.has("gcd"):
        return [f"{metric.id} needs a column gcd"]
    if metric.role == "detector" and file.has("labels") and not file.has("scores") and options.threshold != request.threshold:
        return [f"{metric.id}: labels without scores are of one threshold only, which --threshold gives"]
    return []
