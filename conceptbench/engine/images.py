"""One image of a plan, its key, and the images of a task: made on demand, because a plan may have millions."""

from __future__ import annotations

import functools
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from json.encoder import encode_basestring
from typing import Any, overload

from conceptbench.core.files import canonical_json
from conceptbench.core.manifests import prompts_for
from conceptbench.core.results import BASE as BASE  # also known by this name
from conceptbench.core.results import FLOOR as FLOOR
from conceptbench.core.schemas import Prompt, Role, Sampler, Suite, Task
from conceptbench.core.seeds import image_seeds
from conceptbench.models.conditions import Condition
from conceptbench.models.info import BaseInfo


@functools.cache
def library_versions() -> dict[str, str]:
    """major.minor of the libraries that shape images."""
    return {name: ".".join(version(name).split(".")[:2]) for name in ("torch", "diffusers")}


@functools.lru_cache(maxsize=64)
def _json_of(sampler: Sampler) -> str:
    return canonical_json(sampler)


@functools.lru_cache(maxsize=256)
def _key_start(components: str, model: str) -> Any:
    """The hash's state after what all images of a model share."""
    return hashlib.sha256(f'{{"base":{components},"model":{encode_basestring(model)},'.encode())


@functools.cache
def _key_end() -> str:
    return f'"versions":{canonical_json(library_versions())},"what":"image"}}'


def _around_seed(condition: Condition, sampler: Sampler, info: BaseInfo, model: str) -> tuple[Any, bytes]:
    """A key's hash before the seed, and the text after it: the same for all images of a prompt.

    A key is the sha256 of the canonical JSON of base, model, negative prompt, sampler, seed, text, library versions (and the
    precision where it is not plain float32), put together by hand because a plan has millions of them.
    """
    digest = _key_start(info.components_json, model).copy()
    precision = "" if info.precision == "fp32" else f'"precision":"{info.precision}",'
    digest.update(f'"negative":{encode_basestring(condition.negative)},{precision}"sampler":{_json_of(sampler)},"seed":'.encode())
    return digest, f',"text":{encode_basestring(condition.text)},{_key_end()}'.encode()


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """One image of a task, for any model: what it shows, for whom it counts and its noise.

    ``content`` is the prompt without its style or artist, for metrics; it shapes no image.
    """

    task: str
    concept: str
    role: Role
    prompt_id: str
    number: int
    condition: Condition
    seed: int
    sampler: Sampler
    content: str = ""

    def key(self, info: BaseInfo, model: str) -> str:
        """The content key of this image under a model: the hash of an erasure's weights, or ``base``."""
        digest, end = _around_seed(self.condition, self.sampler, info, model)
        digest.update(b"%d" % self.seed + end)
        return str(digest.hexdigest())


class Images(Sequence[ImageSpec]):
    """The images of a task in the order of their prompts, targets first. Holds the prompts and makes the rest on demand.

    Args:
        suite: sampler, seed and images a prompt.
        task: targets, retained concepts and prompt set.
        limit: prompts a concept, and where each image is a draw of its own (labels, ``clusters: image``) images a prompt; None for all.
    """

    def __init__(self, suite: Suite, task: Task, limit: int | None = None) -> None:
        self._suite, self._task = suite, task
        self._rows: list[tuple[Role, Prompt]] = []
        for role, names in task.drawn.items():
            rows = defaultdict(list)
            for row in prompts_for(task.prompts.set, task.prompts.split, list(names)) if names else ():
                rows[row.concept].append(row)
            self._rows += [(role, row) for name in names for row in rows[name][:limit]]
        alone = all(self._alone(row) for _, row in self._rows)
        self._each = min(suite.images_per_prompt, limit) if alone and limit is not None else suite.images_per_prompt

    def __len__(self) -> int:
        return len(self._rows) * self._each

    @overload
    def __getitem__(self, index: int) -> ImageSpec: ...
    @overload
    def __getitem__(self, index: slice) -> list[ImageSpec]: ...
    def __getitem__(self, index: int | slice) -> ImageSpec | list[ImageSpec]:
        """One image, or several."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row, number = divmod(range(len(self))[index], self._each)
        return next(self._of(*self._rows[row], range(number, number + 1)))

    def __iter__(self) -> Iterator[ImageSpec]:
        for role, row in self._rows:
            yield from self._of(role, row, range(self._each))

    def _alone(self, row: Prompt) -> bool:
        """Whether each image of a row is a cluster of its own: a label is one condition and no sample of prompts."""
        return row.is_label or self._task.prompts.clusters == "image"

    def _of(self, role: Role, row: Prompt, numbers: range) -> Iterator[ImageSpec]:
        condition, sampler = self._condition(row), self._sampler(row)
        for number, seed in zip(numbers, self._seeds(row, numbers), strict=True):
            prompt_id, number = (f"{row.prompt_id}-{number}", 0) if self._alone(row) else (row.prompt_id, number)
            yield ImageSpec(self._task.id, row.concept, role, prompt_id, number, condition, seed, sampler, row.content)

    def _condition(self, row: Prompt) -> Condition:
        return Condition(row.text, row.negative or "")

    def _sampler(self, row: Prompt) -> Sampler:
        return self._suite.sampler if self._task.prompts.rows == "override" else self._suite.sampler.for_row(row)

    def _seeds(self, row: Prompt, numbers: range) -> list[int]:
        if row.seed is not None:
            return [row.seed + n for n in numbers]
        return image_seeds(self._suite.seed, row.prompt_id, numbers, self._task.prompts.split)

    def digests(self, info: BaseInfo, model: str) -> Iterator[bytes]:
        """The keys of all images under a model as 32 raw bytes each, without making the images."""
        numbers = range(self._each)
        for _, row in self._rows:
            start, end = _around_seed(self._condition(row), self._sampler(row), info, model)
            for seed in self._seeds(row, numbers):
                digest = start.copy()
                digest.update(b"%d" % seed + end)
                yield digest.digest()
