"""Scores a folder of images that were made elsewhere: which file is which image of a task, and what the judges say of it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.errors import UserInputError, nearest, unknown_name
from conceptbench.core.files import sha256_bytes
from conceptbench.core.results import plain_cell
from conceptbench.engine.images import BASE, ImageSpec
from conceptbench.engine.judging import Hearing
from conceptbench.engine.pictures import SUFFIXES, pictures_in, read_picture
from conceptbench.engine.plan import Plan
from conceptbench.engine.run import Runner
from conceptbench.engine.seen import Model

BATCH = 64
SHOWN = 5  # problems of one kind that an error lists
PRESET = "images"
"""What stands in place of a preset for images without weights."""


def plain(text: str) -> str:
    """A prompt or a file name's caption with case, punctuation and underscores taken out, so that both can be compared."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def caption_of(stem: str) -> tuple[str, int | None]:
    """A file name's caption and number: ``a_photo_of_a_church_003`` is (``a photo of a church``, 3); None without a number."""
    found = re.fullmatch(r"(.*?)[\s_\-.]+(\d+)", stem)
    return (plain(found[1]), int(found[2])) if found else (plain(stem), None)


@dataclass(frozen=True)
class Claim:
    """What a file says that it shows: a prompt_id or a prompt, and its number among that prompt's images if it gives one."""

    path: Path
    prompt_id: str = ""
    prompt: str = ""
    number: int | None = None


def claims_of_names(folder: Path) -> list[Claim]:
    """What the file names of a folder say, sub-folders included; hidden files are left out."""
    paths = pictures_in(folder)
    if not paths:
        raise UserInputError(f"no images in {folder}", f"looked for {', '.join(SUFFIXES)}")
    return [Claim(p, "", *caption_of(p.stem)) for p in paths]


def claims_of_manifest(folder: Path, manifest: Path) -> list[Claim]:
    """What a CSV says: columns ``file`` and ``prompt_id`` or ``prompt``, and ``number`` if a prompt has several images.

    Raises:
        UserInputError: a column or a file is missing; all missing files are counted and the first ones named.
    """
    try:
        reader = csv.DictReader(io.StringIO(manifest.read_text(encoding="utf-8-sig")))
    except (OSError, UnicodeDecodeError) as error:
        raise UserInputError(f"cannot read the manifest {manifest}: {error}", "it must be a CSV file in UTF-8") from error
    columns = list(reader.fieldnames or ())
    if "file" not in columns or not {"prompt_id", "prompt"} & set(columns):
        raise UserInputError(f"{manifest} needs a column `file` and a column `prompt_id` or `prompt`", f"it has: {', '.join(columns) or 'nothing'}")
    claims, missing = [], []
    for line, row in enumerate(reader, start=2):
        path = folder / plain_cell(row["file"] or "")
        number = (row.get("number") or "").strip()
        if number and not number.isdecimal():
            raise UserInputError(f"{manifest}:{line}: number {number!r} is not a whole number", "number a prompt's images from 0")
        if not path.is_file():
            missing.append(f"{manifest.name}:{line}: {row['file']}")
        prompt_id, prompt = (plain_cell(row.get(c) or "").strip() for c in ("prompt_id", "prompt"))
        claims.append(Claim(path, prompt_id, plain(prompt), int(number) if number else None))
    if missing:
        raise UserInputError(f"{len(missing)} files of {manifest} are not in {folder}: " + "; ".join(missing[:SHOWN]), "paths are relative to the folder")
    return claims


def matched(claims: Sequence[Claim], specs: Sequence[ImageSpec], *, paired: bool = False) -> dict[int, Path]:
    """Which image of a task each file is: index of the image -> file. Images without a file are simply not there.

    Args:
        claims: the files.
        specs: the task's images.
        paired: whether each must be exactly the image of its number.

    Raises:
        UserInputError: files that fit no prompt (with the nearest), or more files for a prompt than the suite draws.
    """
    by_prompt: dict[str, list[int]] = {}
    for i, spec in enumerate(specs):
        by_prompt.setdefault(f"id {spec.prompt_id}", []).append(i)
        by_prompt.setdefault(plain(spec.condition.text), []).append(i)
    wanted: dict[str, list[Claim]] = {}
    strangers = []
    for claim in claims:
        names = [n for n in (f"id {claim.prompt_id}" if claim.prompt_id else "", claim.prompt) if n]
        name = next((n for n in names if n in by_prompt), None)
        if name is not None:
            wanted.setdefault(name, []).append(claim)
        else:
            close = nearest(names[-1] if names else claim.path.stem, by_prompt)
            strangers.append(f"{claim.path.name}" + (f" (nearest: {close!r})" if close else ""))
    if strangers:
        raise UserInputError(
            f"{len(strangers)} files fit no prompt of the task: " + "; ".join(strangers[:SHOWN]),
            "name files like the prompt (a_photo_of_a_church_0.png), or give --manifest with columns file and prompt_id",
        )
    first = _first_number(wanted.values(), len(next(iter(by_prompt.values()), ())), paired=paired)
    found: dict[int, Path] = {}
    for name, own in wanted.items():
        for claim in own:
            index = _index(name, claim, by_prompt[name], first)
            if index in found:
                raise UserInputError(f"{found[index].name} and {claim.path.name} are the same image of {name!r}", "number a prompt's images from 0")
            found[index] = claim.path
    return found


def _first_number(groups: Iterable[Sequence[Claim]], images: int, *, paired: bool) -> int:
    """Whether the files of a folder number a prompt's images from 0 or from 1: the same for all prompts.

    Raises:
        UserInputError: pairs are asked for, and the numbers fit both.
    """
    numbers = {c.number for own in groups for c in own if c.number is not None}
    if 0 in numbers or images in numbers:
        return 0 if 0 in numbers else 1
    if paired and images > 1:
        raise UserInputError(f"the files' numbers {sorted(numbers)} may count from 0 or from 1", "give a manifest with a column `number` that counts from 0")
    return 0


def _index(name: str, claim: Claim, indices: Sequence[int], first: int) -> int:
    """A file's place among its prompt's images; with one image a prompt a number in the file's name says nothing."""
    if len(indices) == 1:
        return indices[0]
    if claim.number is None or not first <= claim.number < first + len(indices):
        raise UserInputError(
            f"{claim.path.name}: number {claim.number} of {name!r}, and the suite draws {len(indices)} images a prompt",
            f"number them {first} to {first + len(indices) - 1}, or set images_per_prompt in a copy of the suite",
        )
    return indices[claim.number - first]


def score_folder(runner: Runner, task_id: str, name: str, claims: Sequence[Claim], *, paired: bool) -> None:
    """Scores a task's images from files; rows and records go to the runner's outcome, the base's (from the store) first.

    Args:
        runner: of a plan without erasers; it makes nothing.
        task_id: of the plan's suite.
        name: what the rows call these images.
        claims: the files.
        paired: whether they have the plan's seeds and sampler, so that they are compared with the base's image by image.
    """
    plan = runner.plan
    if task_id not in plan.images:
        raise unknown_name(f"task of suite {plan.suite.name}", task_id, plan.images)
    specs = list(plan.images[task_id])
    files = matched(claims, specs, paired=paired)
    if paired:
        _check_partners(runner, [specs[i] for i in files])
    keys = _look(runner, plan, specs, files, paired)
    task = next(t for t in plan.suite.tasks if t.id == task_id)
    scores = runner.task_scores(task, specs)
    runner.score(scores, runner.base_model(task), f"base [{task_id}]", is_base=True)
    model = Model(name, PRESET, lambda s: keys[0].get(_place(s), ""), keys[1].said, {"train_seed": None}, whole=False)
    runner.score(scores, model, f"{name} [{task_id}]", paired=paired)


def _check_partners(runner: Runner, specs: Sequence[ImageSpec]) -> None:
    """Pairs need the base's images: an error says how to make them."""
    missing = sum(not runner.store.has_image(s.key(runner.plan.info, BASE)) for s in specs)
    if missing:
        suite = runner.plan.suite.name
        raise UserInputError(
            f"{missing} of the base's images are not in the store, and --paired compares with them", f"conceptbench run {suite} with the same --task draws them"
        )


def _place(spec: ImageSpec) -> tuple[str, str, int]:
    return spec.concept, spec.prompt_id, spec.number


def _look(runner: Runner, plan: Plan, specs: Sequence[ImageSpec], files: Mapping[int, Path], paired: bool) -> tuple[dict[tuple[str, str, int], str], Hearing]:
    """Shows the files to the judges; gives each image's key, the sha256 of its pixels and its place, and what was said."""
    judges = {n: j for n, j in runner.measures.judges.items() if paired or j.card.role != "distance"}
    hearing = Hearing(judges, plan.info, "foreign", runner.store)
    keys: dict[tuple[str, str, int], str] = {}
    indices = sorted(files)
    for start in range(0, len(indices), BATCH):
        runner.session.stop.check()
        by_size: dict[tuple[int, ...], list[tuple[int, NDArray[np.uint8]]]] = {}
        for i in indices[start : start + BATCH]:
            pixels = read_picture(files[i])
            by_size.setdefault(pixels.shape, []).append((i, pixels))
        for group in by_size.values():
            chosen = [specs[i] for i, _ in group]
            # the prompt is part of the key, because the same file may stand for several of them
            own = [sha256_bytes(p.tobytes() + s.key(plan.info, "foreign").encode()) for (_, p), s in zip(group, chosen, strict=True)]
            keys.update({_place(s): k for s, k in zip(chosen, own, strict=True)})
            hearing.look(own, chosen, np.stack([p for _, p in group]))
    return keys, hearing
