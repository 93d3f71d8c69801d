"""The plan: every image, erasure and judgement of a run with its key, before anything starts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from conceptbench.core.errors import UserInputError
from conceptbench.core.files import key_of
from conceptbench.core.manifests import task_concepts
from conceptbench.core.schemas import Concept, Sampler, Split, Suite, Task
from conceptbench.engine.images import BASE, Images, ImageSpec, library_versions
from conceptbench.engine.lineup import Entry, shared_source_hash
from conceptbench.engine.watching import watch_key
from conceptbench.models.info import BaseInfo

BATCH = 32


@dataclass(frozen=True)
class EraseUnit:
    """One erasure to make: an entry of the line-up for a task."""

    entry: Entry
    task: Task
    key: str

    @property
    def name(self) -> str:
        """``esd-x:mini [church]``: what people and journals call it."""
        return f"{self.entry.spec} [{self.task.id}]"


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
        """The hash of what the suite asks for: itself, its concepts and every prompt and seed."""
        concepts = {t.id: task_concepts(self.suite, t) for t in self.suite.tasks}
        images = {t: [[s.concept, s.prompt_id, s.condition.text, s.condition.negative, s.seed] for s in specs] for t, specs in self.images.items()}
        return key_of({"suite": self.suite, "concepts": concepts, "images": images})

    def without_erasers(self) -> Plan:
        """The same images without a line-up."""
        return replace(self, entries=(), erasures=())

    def distinct_base_images(self) -> list[ImageSpec]:
        """Images of the unmodified model, each once, whichever tasks ask for it."""
        by_key = {s.key(self.info, BASE): s for specs in self.images.values() for s in specs}
        return list(by_key.values())


def request_of(task: Task, concepts: dict[str, Concept], sampler: Sampler, seed: int) -> dict[str, object]:
    """What an erasure's key knows of its request: the concepts in full, so that an edited phrase makes a new erasure."""
    return {
        "targets": [concepts[n] for n in task.targets],
        "retained": [concepts[n] for n in task.retained],
        "sampler": sampler,
        "seed": seed,
    }


def make_plan(suite: Suite, info: BaseInfo, entries: list[Entry], *, limit: int | None = None, train_seed: int = 0, split: Split | None = None) -> Plan:
    """Plans a run.

    Args:
        suite: what to measure.
        info: the base's identity.
        entries: the line-up.
        limit: prompts a concept; None for all.
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
            if len(task.targets) > 1 and not entry.eraser.supports.multi:
                raise UserInputError(f"{entry.label} erases one target at a time, and task {task.id!r} has {len(task.targets)}")
            request = request_of(task, task_concepts(suite, task), suite.sampler, train_seed)
            key = key_of(
                {
                    "what": "erasure",
                    "base": info.components,
                    "eraser": entry.label,
                    "config": entry.config,
                    "source": entry.source_sha256,
                    "shared": shared_source_hash(),
                    "request": request,
                    "versions": library_versions(),
                    **watch_key(suite),
                    **({} if info.precision == "fp32" else {"precision": info.precision}),  # of reference images
                }
            )
            units.append(EraseUnit(entry, task, key))
    images = {t.id: Images(suite, t, limit) for t in suite.tasks}
    return Plan(suite, info, tuple(entries), images, tuple(units), train_seed, limit, split == "development")
