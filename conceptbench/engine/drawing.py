"""Draws prompts into a folder of images with a manifest: what ``generate`` does."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from pydantic import ValidationError

from conceptbench.core.errors import UserInputError, nearest
from conceptbench.core.files import safe_name, write_bytes, write_text
from conceptbench.core.results import safe_cell
from conceptbench.core.schemas import Prompt, Sampler
from conceptbench.engine.generate import generate_alone
from conceptbench.engine.images import BASE, ImageSpec
from conceptbench.engine.session import Session
from conceptbench.engine.store import Store
from conceptbench.models.base import Base
from conceptbench.models.conditions import Condition
from conceptbench.models.erasure import Erasure
from conceptbench.models.schedulers import SCHEDULERS

COLUMNS = ("file", "prompt_id", "concept", "prompt", "number", "seed", "image", "model")
USUAL = {"mini": (10, 3.0), "paper": (50, 7.5)}
"""Steps and guidance by tier."""


def sampler_of(tier: str, scheduler: str, steps: int | None, guidance: float | None, size: int | None) -> Sampler:
    """A sampler with the tier's usual steps and guidance where none are given.

    Raises:
        UserInputError: there is no such scheduler, or a value is out of range.
    """
    usual = USUAL[tier]
    try:
        return Sampler.model_validate(
            {"scheduler": scheduler, "steps": usual[0] if steps is None else steps, "guidance": usual[1] if guidance is None else guidance, "size": size}
        )
    except ValidationError as error:
        close = nearest(scheduler, SCHEDULERS)
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors())
        raise UserInputError(f"not a sampler: {problems}" + (f"; did you mean {close!r}?" if close and close != scheduler else "")) from error


def specs_of(rows: Sequence[Prompt], sampler: Sampler, number: int, seed: int) -> list[ImageSpec]:
    """``number`` images a prompt; image k has the row's seed, or ``seed``, plus k."""
    return [
        ImageSpec(
            "generate",
            row.concept,
            "target",
            row.prompt_id,
            k,
            Condition(row.text, row.negative or ""),
            (seed if row.seed is None else row.seed) + k,
            sampler.for_row(row),
        )
        for row in rows
        for k in range(number)
    ]


def chosen_part(erasure: Erasure | None, concepts: Sequence[str] | None, recover: bool, recover_with: str) -> Erasure | None:
    """What of an erasure is applied.

    Args:
        erasure: None for the base.
        concepts: only these parts of a separable erasure, or with ``recover`` what is brought back; None for all.
        recover: bring targets back with what is hidden in it.
        recover_with: whose; see :meth:`Erasure.restoring`.

    Raises:
        UserInputError: there is nothing to choose from, or nothing to recover with.
    """
    if erasure is None:
        if concepts or recover or recover_with:
            raise UserInputError("--concepts and --recover are about an erasure, and none is given", "give --checkpoint")
        return None
    if recover_with and not recover:
        raise UserInputError(f"--recover-with {recover_with!r} says how to recover, and --recover is not given", "add --recover")
    if not recover:
        return erasure.part(concepts)
    if erasure.recovery is None:
        raise UserInputError(
            "--recover needs an erasure with a hidden artefact, and this one has none",
            "an exported file never has it; for an erasure with parts, choose with --concepts which are applied",
        )
    restored = concepts or erasure.meta.get("targets", [])
    if not restored:
        raise UserInputError("the erasure does not say what its targets were", "name them with --concepts")
    return erasure.restoring(restored, recover_with)


def draw_folder(
    base: Base,
    rows: Sequence[Prompt],
    sampler: Sampler,
    output: Path,
    store: Store,
    session: Session,
    erasure: Erasure | None = None,
    *,
    number: int = 1,
    seed: int = 0,
) -> Path:
    """Draws all prompts, through the store, and copies the images beside a ``manifest.csv``.

    Args:
        base: the model.
        rows: prompts.
        sampler: scheduler, steps, guidance, size.
        output: the folder.
        store: where images are kept by content.
        session: reporter, stop, batch.
        erasure: applied while drawing; None for the base.
        number: images a prompt.
        seed: of rows without one.

    Returns:
        The manifest's path.
    """
    specs = specs_of(rows, sampler, number, seed)
    model = BASE if erasure is None else erasure.weights_hash()
    with nullcontext() if erasure is None else erasure.applied(base):
        generate_alone(base, specs, model, store, session, what="images")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for spec in specs:
        key = spec.key(base.info, model)
        name = f"{safe_name(spec.prompt_id)}_{spec.number}.png"
        write_bytes(output / name, store.image_path(key).read_bytes())
        writer.writerow([safe_cell(v) for v in (name, spec.prompt_id, spec.concept, spec.condition.text, spec.number, spec.seed, key, model)])
    write_text(output / "manifest.csv", out.getvalue())
    return output / "manifest.csv"
