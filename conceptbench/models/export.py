"""Takes an erasure away: as a whole diffusers folder, as a state dict, or as a patch. Hidden artefacts never leave."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from conceptbench import __version__
from conceptbench.core.errors import UserInputError, unknown_name
from conceptbench.core.files import atomic_path, canonical_json, pretty_json, write_error, write_text
from conceptbench.models.base import Base
from conceptbench.models.erasure import Erasure

Form = Literal["diffusers", "state-dict", "patch"]
FORMS: tuple[str, ...] = get_args(Form)
PROVENANCE = "conceptbench.json"
RECORDED = ("eraser", "preset", "task", "train_seed", "base", "combination")


def export_erasure(erasure: Erasure, base: Base, destination: Path, form: str, *, force: bool = False) -> Path:
    """Writes an erasure for use without ConceptBench (or, as a patch, with it).

    The weights are the base's own tensors with the changed ones swapped in while writing, so no second model is held in memory.
    What is at the destination is either nothing, the old export or the whole new one.

    Args:
        erasure: it is not changed.
        base: what it was made for; as it was on return.
        destination: of ``diffusers`` a folder; of ``state-dict`` and ``patch`` a file ending in ``.safetensors``.
        form: ``diffusers``: a folder for ``DiffusionPipeline.from_pretrained``; ``state-dict``: all weights of the changed networks by
            diffusers names, those of the UNet alone without prefix (for ``unet.load_state_dict``), else with the component in front;
            ``patch``: the erasure itself, without hidden artefacts.
        force: replace an earlier export at the destination.

    Returns:
        The destination, absolute.

    Raises:
        UserInputError: unknown form, something else is at the destination, the erasure does not fit the base, or its effect is not
            in the weights.
        WriteError: the disk is full, read-only and the like.
    """
    destination = check_destination(destination, form, force=force)
    if form != "patch":
        _check_exportable(erasure, form)
    erasure.check(base)
    writers: dict[str, Callable[[Erasure, Base, Path], None]] = {"diffusers": _write_folder, "state-dict": _write_state_dict, "patch": _write_patch}
    try:
        writers[form](erasure, base, destination)
    except (OSError, SafetensorError) as error:
        raise write_error(destination, error if isinstance(error, OSError) else OSError(str(error))) from error
    return destination


def check_destination(destination: Path, form: str, *, force: bool = False) -> Path:
    """The destination, absolute, if an export may be written there; call it before anything slow.

    Raises:
        UserInputError: the form is unknown, the destination is taken, or it is of the wrong kind for the form.
    """
    if form not in FORMS:
        raise unknown_name("form of export", form, FORMS)
    path = destination.expanduser().resolve()
    if form == "diffusers":
        if path.exists() and not path.is_dir():
            raise UserInputError(f"{path} is a file, but a diffusers pipeline is a folder", "give another --output")
        if path.is_dir() and any(path.iterdir()):
            if not force:
                raise UserInputError(f"{path} exists and is not empty", "give another --output, or --force to replace it")
            if not (path / PROVENANCE).is_file() or not (path / "model_index.json").is_file():
                raise UserInputError(f"{path} is not an earlier export (it has no {PROVENANCE}), so it is not replaced even by force", "give another --output")
        return path
    if path.is_dir():
        raise UserInputError(f"{path} is a folder, but a {form} is a file", f"give a file: --output {path / 'erasure.safetensors'}")
    if path.suffix != ".safetensors":
        raise UserInputError(f"{path.name!r}: a {form} is a safetensors file", f"give a name that ends so: --output {path.with_suffix('.safetensors')}")
    if path.exists() and path.stat().st_size and not force:
        raise UserInputError(f"{path} exists", "give another --output, or --force to replace it")
    return path


def _check_exportable(erasure: Erasure, form: str) -> None:
    if erasure.runtime is not None:
        raise UserInputError(
            f"the erasure works while sampling ({erasure.runtime.name}), which weights cannot hold: as {form} it would erase nothing, or only in part",
            "export it as a patch (--form patch), which ConceptBench applies with its runtime",
        )
    if form == "state-dict" and not erasure.changes:
        raise UserInputError("the erasure changes no weights, so its state dict would be empty", "--form diffusers writes the model as it is")


def _provenance(erasure: Erasure, base: Base) -> dict[str, Any]:
    """What was exported: never hidden artefacts, and no hash of them."""
    shown = Erasure(erasure.changes, erasure.runtime, erasure.artefacts)
    record: dict[str, Any] = {"made_by": f"conceptbench {__version__}", "base_id": base.info.id, "base": base.info.components, "weights": shown.weights_hash()}
    return record | {k: erasure.meta[k] for k in RECORDED if k in erasure.meta}


def _write_folder(erasure: Erasure, base: Base, destination: Path) -> None:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    with _whole_folder(destination) as folder, erasure.applied(base):
        base.pipeline.save_pretrained(folder, safe_serialization=True)
        write_text(folder / PROVENANCE, pretty_json(_provenance(erasure, base)))


def _write_state_dict(erasure: Erasure, base: Base, destination: Path) -> None:
    components = list(dict.fromkeys(c.component for c in erasure.changes))
    prefixes = {c: "" if components == ["unet"] else f"{c}." for c in components}
    metadata = {"format": "pt", "conceptbench_export": canonical_json(_provenance(erasure, base))}
    with erasure.applied(base), atomic_path(destination) as temporary:
        tensors: dict[str, Tensor] = {}
        for component in components:
            for name, tensor in base.modules()[component].state_dict().items():
                tensors[prefixes[component] + name] = tensor.detach().cpu().contiguous()
        save_file(tensors, temporary, metadata=metadata)


def _write_patch(erasure: Erasure, base: Base, destination: Path) -> None:
    meta = {**erasure.meta, "exported": {"base_id": base.info.id, "hidden_left_out": len(erasure.hidden)}}
    shown = Erasure(erasure.changes, erasure.runtime, erasure.artefacts, {}, meta)
    if erasure.hidden:  # the recorded hash covers the hidden tensors too
        shown.meta["weights_sha256"] = shown.weights_hash()
        shown.meta.pop("key", None)
    shown.save(destination)


@contextlib.contextmanager
def _whole_folder(destination: Path) -> Iterator[Path]:
    """Yields a hidden folder beside the destination; on success it takes its place in one step, else it is removed."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name[:80]}.", suffix=".part"))
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        temporary.chmod(0o755)
        _take_place(temporary, destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _take_place(new: Path, destination: Path) -> None:
    """Renames a folder to the destination; an earlier export there is put aside first, and back if that fails."""
    if not (destination.is_dir() and any(destination.iterdir())):
        os.replace(new, destination)
        return
    aside = Path(tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name[:80]}.", suffix=".old"))
    os.replace(destination, aside)
    try:
        os.replace(new, destination)
    except OSError:
        os.replace(aside, destination)
        raise
    shutil.rmtree(aside, ignore_errors=True)
