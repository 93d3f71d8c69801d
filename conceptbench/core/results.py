"""Estimates and result rows: a result row is a leaderboard CSV row."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from conceptbench.core.errors import UserInputError
from conceptbench.core.statistics import Interval, mean_interval, paired_difference, rate_interval

RowRole = Literal["target", "retained", "restored", "unseen", "model"]
"""What a row is about: what is erased, what must stay, what was erased and is brought back, what no eraser is told of, an erasure as a whole."""


class Estimate(BaseModel):
    """A number that says how sure it is.

    Attributes:
        value: None if it is undefined; then ``reason`` says why.
        low, high, kind: the 95 % interval and its method; None with a reason in ``kind`` where there is none.
        planned, scored, failed: images.
        clusters: distinct prompts.
        spread, spread_kind: a standard deviation (of the population, ddof 0) and over what; it describes, it is no uncertainty.
        reason: why there is no value, or what must be known about it.
    """

    model_config = ConfigDict(frozen=True)

    value: float | None
    low: float | None = None
    high: float | None = None
    kind: str = ""
    planned: int = 0
    scored: int = 0
    failed: int = 0
    clusters: int = 0
    unit: str = ""
    better: str = ""
    reason: str = ""
    spread: float | None = None
    spread_kind: str = ""

    @classmethod
    def of(cls, values: Sequence[float | None], clusters: Sequence[str], *, planned: int, rate: bool, unit: str, better: str) -> Estimate:
        """The mean of the values that exist, with an interval by prompt.

        Args:
            values: one an image; None where scoring failed.
            clusters: the prompt of each.
            planned: images that the plan has for this group.
            rate: whether values are 0/1.
            unit: of the value.
            better: direction that is good.
        """
        kept = [(v, c) for v, c in zip(values, clusters, strict=True) if v is not None]
        counts: dict[str, Any] = {
            "planned": planned,
            "scored": len(kept),
            "failed": len(values) - len(kept),
            "clusters": len({c for _, c in kept}),
            "unit": unit,
            "better": better,
        }
        if not kept:
            return cls(value=None, reason="no image was scored", **counts)
        numbers, labels = [v for v, _ in kept], [c for _, c in kept]
        interval = (rate_interval if rate else mean_interval)(numbers, labels)
        mean = sum(numbers) / len(numbers)
        if not rate:
            counts.update(spread=math.sqrt(math.fsum((v - mean) ** 2 for v in numbers) / len(numbers)), spread_kind="images")
        if interval is None:
            return cls(value=mean, kind="none: one prompt only", **counts)
        low, high = (min(1.0, max(0.0, end)) if unit == "probability" else end for end in (interval.low, interval.high))
        return cls(value=mean, low=low, high=high, kind=interval.kind, **counts)


class Difference(BaseModel):
    """A paired difference to the base: same condition, same noise."""

    model_config = ConfigDict(frozen=True)

    value: float | None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, erased: Sequence[float | None], base: Sequence[float | None], clusters: Sequence[str], *, rate: bool) -> Difference:
        """Erased minus base over the pairs in which both were scored."""
        pairs = [(e, b, c) for e, b, c in zip(erased, base, clusters, strict=True) if e is not None and b is not None]
        if not pairs:
            return cls(value=None)
        interval: Interval | None
        value, interval = paired_difference([p[0] for p in pairs], [p[1] for p in pairs], [p[2] for p in pairs], rate=rate)
        return cls(value=value, low=interval.low if interval else None, high=interval.high if interval else None)


class ResultRow(BaseModel):
    """One number with all that is needed to compare it. The field order is the CSV's column order.

    ``concept`` is ``*`` in a row over all concepts of the role; :data:`RowRole` says which there are.
    ``eraser`` holds name and variant (``esd-x``); the unmodified model is ``base``. ``status`` is ``ok``, ``partial``, ``limited``
    (fewer prompts were asked for), ``development`` (tuning prompts) or ``failed`` (the erasure was not made; ``reason`` says why).
    ``spread`` is the standard deviation over what ``spread_kind`` says: images, tasks (splits), inversion seeds, disjoint splits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    suite: str
    suite_version: str
    task: str
    role: RowRole
    concept: str
    base: str
    eraser: str
    preset: str
    metric: str
    protocol: str
    better: str
    unit: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    ci_kind: str
    n_planned: int
    n_scored: int
    n_failed: int
    clusters: int
    base_value: float | None
    delta: float | None
    delta_low: float | None
    delta_high: float | None
    train_seed: int | None
    status: str
    reason: str = ""
    spread: float | None = None
    spread_kind: str = ""
    suite_sha256: str = ""
    base_sha256: str = ""
    erasure_sha256: str = ""
    judge_sha256: str = ""
    reference_sha256: str = ""
    plugin_sha256: str = ""
    environment: str = ""
    hardware: str = ""
    erase_seconds: float | None = None
    peak_memory_mb: float | None = None
    network_evaluations: int | None = None
    size_bytes: int | None = None


TIMED_FIELDS = ("environment", "hardware", "erase_seconds", "peak_memory_mb")
"""What a rerun may change; canonical results are results without them."""
TIMED_UNITS = ("seconds", "MB")
"""Units of metrics that a rerun measures anew."""
BASE, FLOOR, CHECKPOINT = "base", "base-under", "checkpoint"
"""Names in rows: the unmodified model; how the name of the base under another sampler begins; the preset of weights made elsewhere."""
COLUMNS = tuple(ResultRow.model_fields)


FORMULA = ("=", "+", "@", "-", "\t", "\r")


def safe_cell(value: object) -> str:
    """A CSV cell. Texts that a spreadsheet would run as a formula, and texts that begin with a quote, get a quote in front."""
    if value is None:
        return ""
    if isinstance(value, float):
        return format(value, ".6g")
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text[:1] in (*FORMULA, "'") else text


def plain_cell(text: str) -> str:
    """The text that :func:`safe_cell` made a cell of."""
    return text[1:] if text[:1] == "'" and text[1:2] in (*FORMULA, "'") else text


def to_csv(rows: Sequence[ResultRow]) -> str:
    """The rows as CSV with a header; numbers with six significant digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([safe_cell(getattr(row, c)) for c in COLUMNS])
    return out.getvalue()


def from_csv(text: str, source: str) -> list[ResultRow]:
    """The rows that :func:`to_csv` wrote; floats have six significant digits.

    Args:
        text: a leaderboard CSV.
        source: where it is from, for errors.

    Raises:
        UserInputError: a column or a value is missing, unknown or of another type; the line is named.
    """
    found = []
    for line, row in read_rows(text, source):
        if isinstance(row, str):
            raise UserInputError(f"{source}:{line}: {row}", "the file is damaged; `conceptbench run` writes it again")
        found.append(row)
    return found


def read_rows(text: str, source: str, *, as_written: bool = False) -> Iterator[tuple[int, ResultRow | str]]:
    """Each row with the line that it begins in; of one that is not as :func:`to_csv` writes it, what is wrong with it.

    Args:
        text: a leaderboard CSV.
        source: where it is from, for errors.
        as_written: refuse texts that :func:`to_csv` would write otherwise: a spreadsheet would run them as a formula.

    Raises:
        UserInputError: the header lacks columns or has others; before the first row.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    header = next(reader, [])
    found = set(header)
    twice = {c for c in header if header.count(c) > 1}
    problems = (("lacks the columns", set(COLUMNS) - found), ("has unknown columns", found - set(COLUMNS)), ("has twice the columns", twice))
    for what, columns in problems:
        if columns:
            raise UserInputError(f"{source} {what} {', '.join(sorted(columns))}", "give a leaderboard.csv that `conceptbench run` wrote")
    line = reader.line_num + 1
    try:
        for cells in reader:
            begins, line = line, reader.line_num + 1  # a quoted text may go over several lines
            if cells:
                yield begins, _row(header, cells, as_written=as_written)
    except csv.Error as error:
        yield line, f"not valid CSV: {error}"


def _row(header: Sequence[str], cells: Sequence[str], *, as_written: bool) -> ResultRow | str:
    if len(cells) != len(header):
        return f"{len(header)} cells are wanted, and there are {len(cells)}"
    try:
        row = ResultRow.model_validate({c: _value(c, cell) for c, cell in zip(header, cells, strict=True)})
    except ValidationError as error:
        return "; ".join(f"{wrong['loc'][0]} is {wrong['input']!r}: {wrong['msg']}" for wrong in error.errors())
    if as_written:
        pairs = ((c, cell, safe_cell(getattr(row, c))) for c, cell in zip(header, cells, strict=True) if c in _TEXTS)
        other = [f"{c} is {cell!r}, which is written as {right!r}" for c, cell, right in pairs if cell != right]
        if other:
            return "; ".join(other)
    return row


_TEXTS = frozenset(name for name, field in ResultRow.model_fields.items() if field.annotation is str)


def _value(column: str, cell: str) -> str | None:
    """A cell's content; an empty one is no value where a value may be missing."""
    return plain_cell(cell) if cell or column in _TEXTS else None
