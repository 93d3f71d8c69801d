"""``records.csv``: one row an image and model with its value under every metric; what rows, comparisons and pages are made of.

Columns: ``task, role, concept, eraser, preset, prompt_id, number, seed, prompt, image`` and then one column a protocol. A cell is
empty where the metric does not apply to the image, and ``failed`` where it does but gave no value.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conceptbench.core.errors import UserInputError
from conceptbench.core.files import write_text
from conceptbench.core.results import plain_cell, safe_cell

FIXED = ("task", "role", "concept", "eraser", "preset", "prompt_id", "number", "seed", "prompt", "image")
FAILED = "failed"


@dataclass(frozen=True)
class Record:
    """One image of one model on one task.

    Attributes:
        seed: of its noise; -1 where it is not known (images made elsewhere).
        image: its key in the store.
        values: protocol -> value; None where the metric applies and gave none; a metric that does not apply is absent.
    """

    task: str
    role: str
    concept: str
    eraser: str
    preset: str
    prompt_id: str
    number: int
    seed: int
    prompt: str
    image: str
    values: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def pair(self) -> tuple[str, str, str, int, int]:
        """What images of two models must share to be a pair: task, concept, prompt, number and seed."""
        return self.task, self.concept, self.prompt_id, self.number, self.seed


def _number(value: float | None) -> str:
    return FAILED if value is None else repr(float(value)) if value != int(value) else str(int(value))


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Writes the records; the same records give the same bytes."""
    protocols = list(dict.fromkeys(p for r in records for p in r.values))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*FIXED, *protocols])
    for r in records:
        writer.writerow([*(safe_cell(getattr(r, c)) for c in FIXED), *(_number(r.values[p]) if p in r.values else "" for p in protocols)])
    write_text(path, out.getvalue())


def read_records(path: Path) -> Iterator[Record]:
    """The records of a run's folder, or of a ``records.csv``.

    Raises:
        UserInputError: the file is not there or not of this form.
    """
    file = path / "records.csv" if path.is_dir() else path
    try:
        reader = csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")))
        missing = set(FIXED) - set(reader.fieldnames or ())
        if missing:
            raise UserInputError(f"{file} lacks the columns {', '.join(sorted(missing))}", "give the folder that `conceptbench run --output` wrote")
        for line, row in enumerate(reader, start=2):
            try:
                values = {p: None if v == FAILED else float(v) for p, v in row.items() if p not in FIXED and v != ""}
                strange = [p for p, v in values.items() if v is not None and not math.isfinite(v)]
                if strange:
                    raise ValueError(f"{strange[0]} is {row[strange[0]]}, and a value is a finite number or {FAILED!r}")
                fixed = {c: plain_cell(row[c]) for c in FIXED if c not in ("number", "seed")}
                yield Record(**fixed, number=int(row["number"]), seed=int(row["seed"]), values=values)
            except (TypeError, ValueError) as error:
                raise UserInputError(f"{file}:{line}: {error}", "the file is damaged; `conceptbench run` writes it again") from error
    except OSError as error:
        raise UserInputError(f"no readable records: {error}", "give the folder that `conceptbench run --output` wrote") from error
