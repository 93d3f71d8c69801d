"""What people write in manifests: concepts, prompt rows, tasks, suites. All strict: an unknown key is an error."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from conceptbench.core.strict import Strict as Strict  # also known by this name
from conceptbench.core.trained_judges import TrainedJudgeSpec

Kind = Literal["identity", "object", "style", "explicit"]
Split = Literal["development", "heldout"]
Role = Literal["target", "retained"]


class Concept(Strict):
    """A thing to erase or to keep.

    Attributes:
        name: unique within its manifest.
        kind: identity, object, style or explicit.
        subcategory: e.g. person, franchise, animal, brand, food.
        phrases: how prompts say it; the first is the usual one.
        templates: prompts around a phrase, with ``{}`` for it, the bare one first; used to erase, never to evaluate.
        anchor: what a targeted eraser maps it to.
        neighbours: names of concepts that are close to it.
        labels: what a classifying judge may answer for it, as ``head/label``.
    """

    name: str
    kind: Kind
    subcategory: str = ""
    phrases: tuple[str, ...] = Field(min_length=1)
    templates: tuple[str, ...] = ("{}",)
    anchor: str = ""
    neighbours: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    @field_validator("templates")
    @classmethod
    def _has_a_slot(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(f"template {template!r} needs exactly one {{}}")
        return templates

    def texts(self, templates: int | None = None) -> list[str]:
        """Every phrase in the first so many templates (None: in all), phrase by phrase; 1 gives the bare phrases."""
        return [template.format(phrase) for phrase in self.phrases for template in self.templates[:templates]]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One row of a prompt set that was found right (:class:`PromptRow` says what the fields are); small, because there may be many."""

    prompt_id: str
    text: str
    concept: str
    split: Split = "heldout"
    seed: int | None = None
    guidance: float | None = None
    negative: str | None = None
    content: str = ""
    is_label: bool = False
    size: int | None = None


class PromptRow(Strict):
    """One row of a prompt set as it is written in a file.

    Attributes:
        prompt_id: unique in the set.
        text: the prompt.
        label: the name of a class in its place, for class-conditional bases. It is no sample of many wordings, as prompts are: its images
            are independent draws, and intervals are over images.
        concept: name of the concept that it is about.
        split: ``development`` prompts are for tuning, ``heldout`` ones for results.
        seed: fixed noise seed, else derived from suite seed, prompt_id and image number.
        guidance, negative: override the sampler's for this row.
        content: the prompt without its style or artist.
        size: pixels a side, in place of the sampler's for this row.
    """

    prompt_id: str
    text: str = ""
    label: str = ""
    concept: str
    split: Split = "heldout"
    seed: int | None = None
    guidance: float | None = None
    negative: str | None = None
    content: str = ""
    size: int | None = Field(default=None, ge=8)

    @model_validator(mode="after")
    def _text_or_label(self) -> PromptRow:
        if bool(self.text) == bool(self.label):
            raise ValueError("both text and label are given" if self.text else "text is empty")
        return self

    def prompt(self) -> Prompt:
        """The same without what validating needs."""
        text, is_label = self.text or self.label, bool(self.label)
        return Prompt(self.prompt_id, text, sys.intern(self.concept), self.split, self.seed, self.guidance, self.negative, self.content, is_label, self.size)


class Sampler(Strict):
    """How images are drawn from a model: part of every image's key.

    Attributes:
        scheduler: ``ddim``, ``ddpm``, ``pndm``, ``lms``, ``euler``, ``dpm++`` or ``unipc``.
        steps: network steps.
        guidance: classifier-free guidance scale; 1 turns it off.
        size: pixels a side, or None for the base's own.
    """

    scheduler: Literal["ddim", "ddpm", "pndm", "lms", "euler", "dpm++", "unipc"] = "ddim"
    steps: int = Field(default=50, ge=1, le=1000)
    guidance: float = Field(default=7.5, ge=0)
    size: int | None = Field(default=None, ge=8)

    def for_row(self, row: Prompt) -> Sampler:
        """With a row's own guidance and size, where it has them."""
        own = {name: value for name, value in (("guidance", row.guidance), ("size", row.size)) if value is not None}
        return self.model_copy(update=own) if own else self


class PromptSource(Strict):
    """Which prompts a task uses: a set's name and a split.

    Attributes:
        rows: whether rows' own guidance and size are honoured or overridden by the suite's sampler. Their seeds are theirs in any case.
        role: draw only what is measured in this role; a set of captions has no prompts for what a task erases.
        clusters: what intervals are over: the ``prompt`` is a sample of many, or each ``image`` is one of the draws of one prompt.
    """

    set: str
    split: Split = "heldout"
    rows: Literal["honour", "override"] = "honour"
    role: Role | None = None
    clusters: Literal["prompt", "image"] = "prompt"

    @model_serializer(mode="wrap")
    def _brief(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is as usual, so that it changes no suite's content key."""
        usual = {name: PromptSource.model_fields[name].default for name in ("rows", "role", "clusters")}
        written: dict[str, Any] = whole(self)
        return {name: value for name, value in written.items() if name not in usual or value != usual[name]}


class Task(Strict):
    """What one erasure must remove and must leave alone. There is one erasure per eraser and task.

    Attributes:
        targets: erased, in this order where the order counts.
        retained: kept; erasers are told, and some use it.
        unseen: measured as what must be kept, but no eraser is told: how far does it reach?
        restored: targets that are brought back before anything is measured: by leaving out their part of a separable erasure, or by a
            hidden artefact. They are measured as what must be kept. Tasks that differ in this only share their erasure.
        restore_with: whose hidden artefact brings them back: their own if empty, another target's by its name, or ``random``: one of
            the same norm.
        mode: all targets ``together``; ``in-turn``: the second from the model without the first, and so on; ``apart``: each alone
            from the base, and then all changes summed.
        anchors: target -> anchor, in place of the concept's own.
        prompts: what is drawn.
    """

    id: str
    targets: tuple[str, ...] = Field(min_length=1)
    retained: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()
    restore_with: str = ""
    mode: Literal["together", "in-turn", "apart"] = "together"
    anchors: dict[str, str] = {}
    prompts: PromptSource

    @property
    def erased(self) -> tuple[str, ...]:
        """What is measured as a target."""
        return tuple(t for t in self.targets if t not in self.restored)

    @property
    def kept(self) -> tuple[str, ...]:
        """What is measured as retained."""
        return (*self.restored, *self.retained, *self.unseen)

    @property
    def drawn(self) -> dict[Role, tuple[str, ...]]:
        """What is drawn, by the role that it is measured in, targets first."""
        every: dict[Role, tuple[str, ...]] = {"target": self.erased, "retained": self.kept}
        return {role: names for role, names in every.items() if self.prompts.role in (None, role)}

    @model_validator(mode="after")
    def _disjoint(self) -> Task:
        for role in ("targets", "retained", "unseen", "restored"):
            twice = sorted({n for n in getattr(self, role) if getattr(self, role).count(n) > 1})
            if twice:
                raise ValueError(f"twice in {role}: {', '.join(twice)}")
        for one, other in (("targets", "retained"), ("targets", "unseen"), ("retained", "unseen")):
            both = sorted(set(getattr(self, one)) & set(getattr(self, other)))
            if both:
                raise ValueError(f"both {one.removesuffix('s')} and {other}: {', '.join(both)}")
        for name, chosen in (("anchors", self.anchors), ("restored", self.restored)):
            strangers = sorted(set(chosen) - set(self.targets))
            if strangers:
                raise ValueError(f"{name} names what is no target of the task: {', '.join(strangers)}; its targets: {', '.join(self.targets)}")
        if self.restore_with not in ("", "random", *self.targets):
            raise ValueError(f"restore_with is {self.restore_with!r}; allowed: random, or one of the targets: {', '.join(self.targets)}")
        if self.restore_with and not self.restored:
            raise ValueError("restore_with says how, but nothing is restored: name targets in restored")
        return self


class MetricSpec(Strict):
    """A metric of a suite.

    Attributes:
        metric: registered name.
        judge: whom it asks.
        preset: a protocol by the name of who used it; it brings options and a judge, and what stands here wins over it.
        options: of the metric.
        each: option -> values: one metric for each combination of them, e.g. thresholds.
        concepts: the concepts that it is about; all that it applies to if empty. For what is dear to measure.
    """

    metric: str
    judge: str | None = None
    preset: str | None = None
    options: dict[str, Any] = {}
    each: dict[str, list[Any]] = {}
    concepts: tuple[str, ...] = ()


class Headline(Strict):
    """The two numbers that the leaderboard leads with: ids of an erasing and a keeping metric."""

    erased: str
    kept: str


class Watch(Strict):
    """What is looked at while an eraser trains (KPOP, Fig. 4): does its prompt still bring the concept out?

    Attributes:
        judge: an image-text judge.
        every: training steps between two looks; the first and the last are always taken.
        images: drawn for each of the two prompts.
        texts: what a learned prompt is compared with, for erasers that learn one.
    """

    judge: str
    every: int = Field(default=50, ge=1)
    images: int = Field(default=4, ge=1)
    texts: tuple[str, ...] = ()


class Suite(Strict):
    """A versioned evaluation: base, sampler, tasks, metrics and the usual line-up of erasers.

    Attributes:
        judges: judges that are trained for this suite's base, by the name that metrics ask them by.
        splits: tasks that are splits of one experiment (KPOP, sec. 4.1): rows of the task ``*`` give the value over all of them
            and its standard deviation over them.
        floor: another sampler, with which the base's images are drawn again: how far two samplers alone are apart.
        watch: what is looked at while an eraser trains.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    version: str = Field(pattern=r"^\d+\.\d+$")
    title: str
    description: str = ""
    base: str
    sampler: Sampler
    seed: int = Field(ge=0)
    images_per_prompt: int = Field(default=1, ge=1)
    concepts: str
    tasks: tuple[Task, ...] = Field(min_length=1)
    metrics: tuple[MetricSpec, ...] = Field(min_length=1)
    erasers: tuple[str, ...] = ()
    headline: Headline
    judges: dict[str, TrainedJudgeSpec] = {}
    splits: tuple[str, ...] = ()
    floor: Sampler | None = None
    watch: Watch | None = None

    @field_validator("tasks")
    @classmethod
    def _unique_ids(cls, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        ids = [t.id for t in tasks]
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            raise ValueError(f"task ids used twice: {', '.join(twice)}")
        return tasks
