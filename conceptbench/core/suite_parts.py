"""What is usable of a faulty suite, so that one fault does not hide the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from conceptbench.core.documents import Document
from conceptbench.core.schemas import Headline, MetricSpec, Task, Watch
from conceptbench.core.suite_checks import concepts_of
from conceptbench.core.trained_judges import TrainedJudgeSpec

Part = TypeVar("Part", bound=BaseModel)


@dataclass(frozen=True)
class Parts:
    """What is usable of a suite, however faulty the rest; lists by their number in the file.

    Attributes:
        every_metric: whether every metric of the file is without a fault.
        every_task: whether every task of the file is usable.
    """

    document: Document
    base: str
    concepts: str
    tasks: dict[int, Task]
    metrics: dict[int, MetricSpec]
    erasers: dict[int, str]
    splits: dict[int, str]
    headline: Headline | None
    watch: Watch | None
    judges: dict[str, TrainedJudgeSpec]
    images_per_prompt: int
    every_metric: bool
    every_task: bool

    def concept_names(self) -> list[str]:
        """Concepts of all tasks, each once."""
        return concepts_of(self.tasks.values())


def parts_of(document: Document) -> Parts:
    """The usable parts of a file that should be a suite."""
    value: Mapping[Any, Any] = document.value if isinstance(document.value, Mapping) else {}
    raw, tasks = value.get("metrics"), value.get("tasks")
    number = value.get("images_per_prompt", 1)
    own = value["judges"] if isinstance(value.get("judges"), Mapping) else {}
    usable = _each(Task, tasks)
    return Parts(
        document,
        base=value["base"] if isinstance(value.get("base"), str) else "",
        concepts=value["concepts"] if isinstance(value.get("concepts"), str) else "",
        tasks=usable,
        metrics=_each(MetricSpec, raw),
        erasers=_texts(value.get("erasers")),
        splits=_texts(value.get("splits")),
        headline=_usable(Headline, value.get("headline")),
        watch=_usable(Watch, value.get("watch")),
        judges={str(n): j for n, v in own.items() if (j := _usable(TrainedJudgeSpec, v)) is not None},
        images_per_prompt=number if isinstance(number, int) else 1,
        every_metric=isinstance(raw, list) and all(_whole(MetricSpec, v) for v in raw),
        every_task=isinstance(tasks, list) and len(usable) == len(tasks),
    )


def _usable(model: type[Part], value: Any) -> Part | None:
    """What a faulty value means without its unknown keys; None if more is wrong. Whoever asks has reported the faults."""
    for _ in range(2):
        try:
            return model.model_validate(value)
        except ValidationError as error:
            top = {e["loc"][0] for e in error.errors() if e["type"] == "extra_forbidden" and len(e["loc"]) == 1}
            if not isinstance(value, Mapping) or not top:
                return None
            value = {k: v for k, v in value.items() if k not in top}
    return None


def _each(model: type[Part], values: Any) -> dict[int, Part]:
    found = {i: _usable(model, v) for i, v in enumerate(values)} if isinstance(values, list) else {}
    return {i: part for i, part in found.items() if part is not None}


def _texts(values: Any) -> dict[int, str]:
    return {i: v for i, v in enumerate(values) if isinstance(v, str)} if isinstance(values, list) else {}


def _whole(model: type[BaseModel], value: Any) -> bool:
    try:
        model.model_validate(value)
    except ValidationError:
        return False
    return True
