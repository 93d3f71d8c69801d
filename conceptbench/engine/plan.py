"""The plan: every image, erasure and judgement of a run with its key, before anything starts."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from conceptbench.core.errors import UserInputError
from conceptbench.core.files import key_of
from conceptbench.core.manifests import task_concepts
from conceptbench.core.schemas import Split, Suite, Task
from conceptbench.engine.images import BASE, Images, ImageSpec, library_versions
from conceptbench.engine.lineup import CHECKPOINT, Entry, shared_source_hash
from conceptbench.engine.pictures import folder_digest
from conceptbench.engine.watching import watch_key
from conceptbench.models.eraser import EraseRequest
from conceptbench.models.info import BaseInfo

BATCH = 32


@dataclass(frozen=True)
class EraseUnit:
    """One erasure to make: an entry of the line-up for a task, or for one of its targets where each is erased on its own.

    Attributes:
        entry: of the line-up.
        task: its targets are erased.
        key: of the erasure in the store; tasks that differ only in what is measured share it.
        others: targets that other parts of the same erasure erase.
        after: the unit on whose result this one goes on; its changes are applied to the base that the eraser gets.
        parts: one a target, if each is erased on its own; their changes are joined.
        part_of: the target, if this is such a part.
    """

    entry: Entry
    task: Task
    key: str
    others: tuple[str, ...] = ()
    after: EraseUnit | None = None
    parts: tuple[EraseUnit, ...] = ()
    part_of: str = ""

    @property
    def calls(self) -> tuple[EraseUnit, ...]:
        """The units that call an eraser: its parts, or itself."""
        return self.parts or (self,)

    @property
    def name(self) -> str:
        """``esd-x:mini [church]``, or ``esd-x:mini [three: dog]`` for the part of a target: what people and journals call it."""
        return f"{self.entry.spec} [{self.task.id}{f': {self.part_of}' if self.part_of else ''}]"

    @property
    def place(self) -> str:
        """Where something failed."""
        return f"task {self.task.id!r}" + (f", target {self.part_of!r}" if self.part_of else "")


@dataclass(frozen=True)
class Plan:
    """All work of a run.

    Attributes:
        suite, entries: what is carried out.
        images: task -> its images, targets first.
        erasures: one unit an entry and task.
        train_seed: of the erasers.
        limited: prompts a concept if ``--limit`` was given.
        development: whether these are development prompts, whose numbers are for tuning only.
    """

    suite: Suite
    info: BaseInfo
    entries: tuple[Entry, ...]
    images: dict[str, Images]
    erasures: tuple[EraseUnit, ...]
    train_seed: int = 0
    limited: int | None = None
    development: bool = False

    def content_key(self) -> str:
        """The hash of what the suite asks for: itself, its concepts and every prompt and seed, with the sampler where rows have their own."""
        concepts = {t.id: task_concepts(self.suite, t) for t in self.suite.tasks}
        images = {t: [self._asked(s) for s in specs] for t, specs in self.images.items()}
        return key_of({"suite": self.suite, "concepts": concepts, "images": images})

    def _asked(self, spec: ImageSpec) -> list[Any]:
        """What a suite's content key has of an image."""
        own = [] if spec.sampler == self.suite.sampler else [spec.sampler]
        return [spec.concept, spec.prompt_id, spec.condition.text, spec.condition.negative, spec.seed, *own]

    def without_erasers(self) -> Plan:
        """The same images without a line-up."""
        return replace(self, entries=(), erasures=())

    def calls(self) -> list[EraseUnit]:
        """Each call of an eraser, once: units without parts, and the parts of the others."""
        found: dict[str, EraseUnit] = {}
        for unit in self.erasures:
            for call in unit.calls:
                found.setdefault(call.key, call)
        return list(found.values())

    def distinct_base_images(self) -> list[ImageSpec]:
        """Images of the unmodified model, each once, whichever tasks ask for it."""
        by_key = {s.key(self.info, BASE): s for specs in self.images.values() for s in specs}
        return list(by_key.values())


def request_of(suite: Suite, unit: EraseUnit, seed: int) -> EraseRequest:
    """What an eraser is asked: with the concepts in full, so that an edited phrase makes a new erasure."""
    concepts = task_concepts(suite, unit.task)
    targets, retained, others = (tuple(concepts[n] for n in names) for names in (unit.task.targets, unit.task.retained, unit.others))
    return EraseRequest(targets, retained, suite.sampler, others, seed)


def _called(suite: Suite, info: BaseInfo, unit: EraseUnit, seed: int) -> EraseUnit:
    """A unit that the eraser is called for once, with the options for its targets and its key."""
    request = request_of(suite, unit, seed)
    entry = unit.entry.on(request.targets)
    key = key_of(
        {
            "what": "erasure",
            "base": info.components,
            "eraser": entry.label,
            "config": entry.config,
            "folders": [folder_digest(Path(f)) for f in entry.config.folders()],
            "source": entry.source_sha256,
            "shared": shared_source_hash(),
            "request": {f.name: getattr(request, f.name) for f in fields(request)},
            "after": unit.after and unit.after.key,
            "versions": library_versions(),
            **watch_key(suite),
            **({} if info.precision == "fp32" else {"precision": info.precision}),  # of reference images
        }
    )
    return replace(unit, entry=entry, key=key)


def _alone(task: Task, target: str) -> Task:
    """The task of erasing one of a task's targets."""
    others = tuple(t for t in task.targets if t != target)  # its concepts stay known to it
    return task.model_copy(update={"targets": (target,), "unseen": (*task.unseen, *others), "restored": (), "restore_with": ""})


def erase_unit(suite: Suite, info: BaseInfo, entry: Entry, task: Task, seed: int) -> EraseUnit:
    """The erasure of a task by an entry of the line-up, in parts where the task's mode says so."""
    if task.mode == "together" or entry.preset == CHECKPOINT:  # a file is what it is
        return _called(suite, info, EraseUnit(entry, task, ""), seed)
    parts: list[EraseUnit] = []
    supports, in_turn = entry.eraser.supports, task.mode == "in-turn"
    for i, target in enumerate(task.targets):
        others = task.targets[:i] if in_turn else tuple(t for t in task.targets if t != target)
        after = parts[-1] if parts and in_turn and not supports.independent else None
        part = EraseUnit(entry, _alone(task, target), "", others if supports.heeds_others else (), after, part_of=target)
        parts.append(_called(suite, info, part, seed))
    key = key_of({"what": "erasure in parts", "targets": task.targets, "parts": [p.key for p in parts], "shared": shared_source_hash()})
    return EraseUnit(entry, task, key, parts=tuple(parts))


def check_supported(entry: Entry, task: Task) -> None:
    """Refuses what an eraser says that it cannot do."""
    if entry.preset == CHECKPOINT:
        return
    supports, several = entry.eraser.supports, len(task.targets) > 1
    leave_out = "or leave this task or this eraser out: --task, --eraser"
    if several and task.mode == "together" and not supports.multi:
        raise UserInputError(f"{entry.label} erases one target at a time, and task {task.id!r} has {len(task.targets)}", f"mode: apart or in-turn; {leave_out}")
    if task.mode != "together" and not supports.iterative:
        raise UserInputError(
            f"{entry.label} cannot erase targets {task.mode} as task {task.id!r} asks: its erasures do not add up", f"mode: together; {leave_out}"
        )
    separable = supports.restore or task.mode != "together"
    if task.restored and not (separable or supports.recover):
        raise UserInputError(
            f"{entry.label} cannot bring {', '.join(task.restored)} back as task {task.id!r} asks",
            f"erasers with parts or a hidden artefact can, and so can others that add up, in mode apart or in-turn; {leave_out}",
        )
    if task.restore_with and not supports.recover:
        raise UserInputError(
            f"{entry.label} has nothing hidden to bring {', '.join(task.restored)} back with, and task {task.id!r} has restore_with", leave_out
        )
    if task.restored:
        entry.eraser.check_restoring(entry.config, task.restored, task.restore_with)


def make_plan(suite: Suite, info: BaseInfo, entries: list[Entry], *, limit: int | None = None, train_seed: int = 0, split: Split | None = None) -> Plan:
    """Plans a run.

    Args:
        suite: what to measure.
        info: the base's identity.
        entries: the line-up.
        limit: prompts a concept, see :class:`Images`; None for all.
        train_seed: of the erasers.
        split: run on this split's prompts instead of the suite's.

    Raises:
        UserInputError: an eraser cannot do what a task asks.
    """
    if split is not None:
        tasks = tuple(t.model_copy(update={"prompts": t.prompts.model_copy(update={"split": split})}) for t in suite.tasks)
        suite = suite.model_copy(update={"tasks": tasks})
    units = []
    for entry in entries:
        if entry.eraser.supports.needs_cfg and suite.sampler.guidance == 1:
            raise UserInputError(f"{entry.label} needs classifier-free guidance, and suite {suite.name!r} samples with guidance 1")
        for task in suite.tasks:
            check_supported(entry, task)
            units.append(erase_unit(suite, info, entry, task, train_seed))
    images = {t.id: Images(suite, t, limit) for t in suite.tasks}
    return Plan(suite, info, tuple(entries), images, tuple(units), train_seed, limit, split == "development")
