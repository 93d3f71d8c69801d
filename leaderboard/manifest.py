"""``manifest.json`` of a submission: what is in it, with the hash of every file, and where the numbers come from."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from conceptbench.core.documents import Problem, messages
from conceptbench.core.files import sha256_file
from conceptbench.core.judge import JudgeCard
from conceptbench.core.strict import Strict

FORMAT = "conceptbench-submission-1"
NAME = "manifest.json"
ROWS = "leaderboard.csv"
Sha256 = str


def inside(name: str) -> str:
    """The path, if it is one inside a submission.

    Raises:
        ValueError: it leads out of it.
    """
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError(f"{name!r} is outside the submission")
    return name


class SuiteUsed(Strict):
    """The suite of a run, and which part of it was carried out.

    Attributes:
        tasks: ids; all of them, or those of ``--task``.
        limited: prompts a concept, or None for all.
        development: whether on tuning prompts.
        sha256: of everything that was asked: the suite, its concepts, prompts and seeds.
    """

    name: str
    version: str
    sha256: Sha256
    tasks: tuple[str, ...]
    limited: int | None = None
    development: bool = False


class EraserUsed(Strict):
    """An eraser of a run: ``NAME:PRESET`` and the hash of its source."""

    spec: str
    sha256: Sha256


class ErasureUsed(Strict):
    """The weights that an eraser yielded for a task."""

    spec: str
    task: str
    sha256: Sha256


class MetricUsed(Strict):
    """A metric of a run: its protocol, and the hash of its source when it ran."""

    protocol: str
    sha256: Sha256


class RunPart(Strict):
    """One run of a submission.

    Attributes:
        folder: of its evidence, in the submission.
        family, tier, base_sha256: of the base.
        judges: cards, by the name in the suite.
        references: digests of reference sets by what they were asked for (:class:`conceptbench.leaderboard.evidence.KeptReferences`).
    """

    folder: str
    suite: SuiteUsed
    base: str
    family: str
    base_sha256: Sha256
    erasers: tuple[EraserUsed, ...]
    erasures: tuple[ErasureUsed, ...]
    metrics: tuple[MetricUsed, ...]
    judges: dict[str, dict[str, Any]]
    references: dict[str, Sha256] = {}

    @field_validator("folder")
    @classmethod
    def _stays_inside(cls, folder: str) -> str:
        return inside(folder)

    @field_validator("judges")
    @classmethod
    def _are_cards(cls, judges: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for card in judges.values():
            JudgeCard.of_document(card)
        return judges

    def cards(self) -> dict[str, JudgeCard]:
        """The judges' cards by the name in the suite."""
        return {n: JudgeCard.of_document(c) for n, c in self.judges.items()}


class WithoutEvidence(Strict):
    """Rows whose numbers cannot be derived again from what is in the submission, and why."""

    folder: str
    protocol: str
    rows: int
    reason: str


class Manifest(Strict):
    """The whole of it.

    Attributes:
        conceptbench: version that wrote it.
        files: path in the submission -> sha256; all files but the manifest.
        rows: of ``leaderboard.csv``.
        status: how many rows have which.
    """

    format: Literal["conceptbench-submission-1"]
    conceptbench: str
    rows: int
    status: dict[str, int]
    runs: tuple[RunPart, ...] = Field(min_length=1)
    without_evidence: tuple[WithoutEvidence, ...] = ()
    files: dict[str, Sha256]

    @field_validator("files")
    @classmethod
    def _stay_inside(cls, files: dict[str, Sha256]) -> dict[str, Sha256]:
        return {inside(name): sha256 for name, sha256 in files.items()}


def read_manifest(folder: Path) -> tuple[Manifest | None, list[Problem]]:
    """A submission's manifest, or None with all that is wrong with it."""
    path = folder / NAME
    try:
        return Manifest.model_validate(json.loads(path.read_text(encoding="utf-8"))), []
    except ValidationError as error:
        return None, [Problem(path, None, text) for _, text in messages(Manifest, error)]
    except (OSError, ValueError) as error:
        return None, [Problem(path, None, f"not readable: {error}; `conceptbench leaderboard export RUN` writes a submission with its manifest")]


def file_problems(folder: Path, manifest: Manifest) -> list[Problem]:
    """Files that are missing, others than the manifest says, or not in it."""
    found = []
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            found.append(Problem(path, None, "the manifest names this file, and it is not there"))
        elif (actual := sha256_file(path)) != expected:
            found.append(Problem(path, None, f"its sha256 is {actual}, and the manifest says {expected}: it was changed after it was exported"))
    strangers = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    found += [Problem(folder / n, None, "this file is not in the manifest") for n in strangers if n not in manifest.files and n != NAME]
    return found
