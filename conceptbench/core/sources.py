"""Prompt sets that never ship, because their licence or their content forbids it: where they come from and how they are recognised.

A manifest in ``prompts/sources``, whose name is that of the set::

    title: I2P, inappropriate image prompts
    dataset: AIML-TUDA/i2p            # of the Hugging Face hub; or `url`
    file: i2p_benchmark.csv           # what it is called there
    rows: 4703
    concept: nudity                   # what all rows are about
    layouts:
    - {text: prompt, seed: sd_seed, guidance: sd_guidance_scale}
    licence: see its card

The user puts the file into the data folder as ``prompts/NAME.csv``. It is read as it is; ids of prompts are made of the numbers of rows.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field, model_validator

from conceptbench.core.data import data_folder
from conceptbench.core.documents import Problem, check, read_document, refuse
from conceptbench.core.errors import MissingDataError
from conceptbench.core.files import sha256_file
from conceptbench.core.prompt_files import Columns, PromptFile, read_prompts, repeated
from conceptbench.core.strict import Strict


class Layout(Strict):
    """The columns of a file that are used, by what they are.

    Attributes:
        text: the prompts.
        seed: the rows' own noise seeds.
        guidance: the rows' own guidance scales.
    """

    text: str
    seed: str = ""
    guidance: str = ""

    def columns(self) -> dict[str, str]:
        """Field of a prompt row -> column of the file."""
        return {field: column for field, column in self.model_dump().items() if column}


class PromptOrigin(Strict):
    """A prompt set of others.

    Attributes:
        title: for people.
        dataset: id on the Hugging Face hub.
        url: where the file lies, if it is not on the hub.
        file: its name there.
        rows: how many it has; a file with more or fewer is another one.
        sha256: of the file, where it is known; any other file is refused then.
        concept: what all rows are about.
        layouts: of the file, and of copies of it with the same rows in the same order; the first that fits is taken.
        licence: under which it may be used, and whether access is restricted.
    """

    title: str
    dataset: str = ""
    url: str = ""
    file: str
    rows: int = Field(ge=1)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    concept: str
    layouts: tuple[Layout, ...] = Field(min_length=1)
    licence: str

    @model_validator(mode="after")
    def _one_place(self) -> PromptOrigin:
        if bool(self.dataset) == bool(self.url):
            raise ValueError("both dataset and url are given" if self.url else "neither dataset nor url is given")
        return self

    def command(self, path: Path) -> str:
        """The command that puts the file at a path."""
        folder, target = shlex.quote(str(path.parent)), shlex.quote(str(path))
        if self.url:
            return f"curl -fL --create-dirs -o {target} {self.url}"
        there = shlex.quote(str(path.parent / self.file))
        return f"hf download {self.dataset} {self.file} --repo-type dataset --local-dir {folder}" + (f" && mv {there} {target}" if there != target else "")


@dataclass(frozen=True)
class _ForeignColumns(Columns):
    """Columns of a set of others."""

    name: str
    origin: PromptOrigin

    def _layout(self, header: Sequence[str]) -> Layout | None:
        return next((one for one in self.origin.layouts if set(one.columns().values()) <= set(header)), None)

    def problems(self, path: Path, header: Sequence[str]) -> list[str]:  # noqa: ARG002 - the problem has it
        """No layout fits, or a column is there twice."""
        if self._layout(header) is not None:
            return repeated(header)
        wanted = "; or ".join(", ".join(one.columns().values()) for one in self.origin.layouts)
        return [f"this is not {self.name}, which has the columns {wanted}: there are {', '.join(header)}"]

    def usable(self, header: Sequence[str]) -> bool:
        """Whether a layout fits."""
        return self._layout(header) is not None and not repeated(header)

    def values(self, header: Sequence[str], cells: Sequence[str], number: int) -> dict[str, str]:
        """The cells that the layout names, with an id and the concept."""
        layout, row = self._layout(header), dict(zip(header, cells, strict=True))
        assert layout is not None
        own = {field: row[column] for field, column in layout.columns().items() if row[column].strip()}
        return {"prompt_id": f"{self.name}-{number:05d}", "concept": self.origin.concept, **own}


def load_origin(manifest: Path) -> PromptOrigin:
    """A manifest of ``prompts/sources``.

    Raises:
        UserInputError: something is wrong with it; with the line.
    """
    document = read_document(manifest)
    origin, problems = check(PromptOrigin, document.value, document) if not document.problems else (None, list(document.problems))
    refuse(problems, "")
    assert origin is not None
    return origin


def place_of(name: str) -> Path:
    """Where the file of a prompt set of others is looked for."""
    return data_folder() / "prompts" / f"{name}.csv"


def read_source(manifest: Path) -> PromptFile:
    """The rows of a prompt set of others, and what is wrong with the file: another checksum, other columns, more or fewer rows.

    Args:
        manifest: in ``prompts/sources``; its name is the set's.

    Raises:
        MissingDataError: the file is not there; with what to put where, and the command that gets it.
        UserInputError: something is wrong with the manifest.
    """
    name, origin = manifest.stem, load_origin(manifest)
    path = place_of(name)
    if not path.is_file():
        raise MissingDataError(
            f"the prompt set {name!r} does not ship with ConceptBench, and there is no {path}",
            f"put {origin.title} there ({origin.rows} rows; {origin.licence}): {origin.command(path)}",
        )
    digest = sha256_file(path)
    if origin.sha256 not in (None, digest):
        wrong = f"this is not {name}: its sha256 is {digest}, not {origin.sha256}; {origin.command(path)}"
        return PromptFile(path, (), (), (Problem(path, None, wrong),))
    found = read_prompts(path, _ForeignColumns(name, origin))
    if not found.problems and len(found.rows) != origin.rows:
        wrong = f"this is not {name} as a whole: it has {len(found.rows)} rows, not {origin.rows} (sha256 {digest}); {origin.command(path)}"
        return replace(found, problems=(Problem(path, None, wrong),))
    return found
