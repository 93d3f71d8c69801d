"""Table specs: how the cells of a paper's table are found among result rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from conceptbench.core.errors import unknown_name
from conceptbench.core.results import COLUMNS
from conceptbench.core.strict import Strict
from conceptbench.leaderboard.published import LEVELS, Cell, PublishedTable, load_published

Tier = Literal["mini", "paper"]
TIERS: tuple[Tier, ...] = ("mini", "paper")
RUN = "run"
"""What a condition may name beside the fields of a result row: the id of the run that the row is of."""
FIELDS = (RUN, *COLUMNS)
COUNTS = ("n_planned", "n_scored", "n_failed", "clusters", "erase_seconds", "peak_memory_mb", "network_evaluations", "size_bytes")
"""Numbers of a row that are in no unit of its metric."""
NUMBERS = ("value", "spread", "delta", "base_value", *COUNTS)
"""What of a row can be shown."""

Scalar = str | int | float
Where = dict[str, Scalar | list[Scalar]]
ALL = "*"
Combine = Literal["sum", "mean", "contrast", "contrast-mean"]
Label = Annotated[str, StringConstraints(min_length=1)]


class Entry(Strict):
    """One label of an axis: a method, a concept, a metric.

    Attributes:
        label: as the paper prints it.
        where: field of a result row -> its value, or a list of values that it may have. In a value ``*`` stands for any text; alone it is
            what rows over all concepts or tasks have.
        mini, paper: more of it, in one tier only; it wins over ``where``.
        tiers: the tiers that have it.
        value: the field that is shown.
        scale: factor of it; None: 100 for a rate, if the published number is in per cent or there is none, else 1.
        digits: behind the point; None: as many as the most exact published number of the column has.
        spread: whether ``spread`` is shown behind ±.
        combine: several result rows fit and are shown as one: their ``sum``, their ``mean``, or SepME's sum over targets minus the sum
            (``contrast``) or mean (``contrast-mean``) over the others. The interval takes them for independent.
        unchanged: what the unmodified model has here by definition, because it is compared with itself: no LPIPS, no change of weights.
    """

    label: Label
    where: Where = {}
    mini: Where = {}
    paper: Where = {}
    tiers: tuple[Tier, ...] = TIERS
    value: str | None = None
    scale: float | None = None
    digits: int | None = Field(default=None, ge=0, le=9)
    spread: bool | None = None
    combine: Combine | None = None
    unchanged: float | None = None

    def conditions(self, tier: Tier) -> Where:
        """All conditions in a tier."""
        return {**self.where, **(self.mini if tier == "mini" else self.paper)}


class Run(Strict):
    """A run that the table needs: what ``conceptbench run`` is given.

    Attributes:
        id: unique in its tier; the folder of its results.
        suite: a suite's name, or a file.
        base: another base than the suite's.
        erasers: another line-up than the suite's; an empty one is the base alone.
        tasks: only these.
    """

    id: str = Field(default="main", pattern=r"^[a-z0-9][a-z0-9._-]*$")
    suite: str
    base: str | None = None
    erasers: tuple[str, ...] | None = None
    tasks: tuple[str, ...] = ()


class TierSpec(Strict):
    """One form of a table.

    Attributes:
        runs: what it is made of.
        mapping: what stands for what, for people; a must on the mini tier.
        where: conditions of every cell.
    """

    runs: tuple[Run, ...] = Field(min_length=1)
    mapping: str = ""
    where: Where = {}

    @model_validator(mode="after")
    def _unique(self) -> TierSpec:
        ids = [r.id for r in self.runs]
        if len(set(ids)) < len(ids):
            raise ValueError(f"two runs have one id: {', '.join(sorted({i for i in ids if ids.count(i) > 1}))}; give each an `id` of its own")
        return self


class TableSpec(Strict):
    """A table: its axes, and where its numbers come from.

    Attributes:
        id: ``kpop/2``; the file is called ``kpop-2.yaml``.
        title, source: for people.
        published: id of the published table; None for a figure without numbers.
        tiers: its forms by tier.
        where: conditions of every cell.
        rows, columns: blocks of axes; the labels of a block are the product of its axes, joined by :data:`LEVELS`.
        joined: the last level of the columns is printed as one cell, ``ACC / LPIPS``.
        methods: what is ranked: which level of which axis the methods are, ``rows.0``.
        apart: rows that differ in the first level are never compared: each has suites and judges of its own.
        added: methods that were added to the paper's (:mod:`conceptbench.leaderboard.adding`): label -> label of the method that it stands beside.
    """

    id: str = Field(pattern=r"^[a-z0-9-]+/[a-z0-9.-]+$")
    title: str
    source: str
    published: str | None = None
    tiers: dict[Tier, TierSpec] = Field(min_length=1)
    where: Where = {}
    rows: tuple[tuple[tuple[Entry, ...], ...], ...] = Field(min_length=1)
    columns: tuple[tuple[tuple[Entry, ...], ...], ...] = Field(min_length=1)
    joined: bool = False
    methods: str = Field(default="rows.0", pattern=r"^(rows|columns)\.\d$")
    apart: bool = False
    added: dict[str, str] = {}

    def lines(self, axis: Literal["rows", "columns"], tier: Tier) -> Iterator[Line]:
        """Rows or columns, each with its entries."""
        for block in getattr(self, axis):
            for entries in itertools.product(*block):
                if all(tier in entry.tiers for entry in entries):
                    yield Line(LEVELS.join(entry.label for entry in entries), entries)

    def tier(self, name: str) -> TierSpec:
        """The form of a tier.

        Raises:
            UserInputError: there is none.
        """
        if name not in self.tiers:
            raise unknown_name(f"tier of table {self.id}", name, self.tiers)
        return self.tiers[name]  # type: ignore[index]


@dataclass(frozen=True)
class Line:
    """A row or a column: its label and the entries that it is made of."""

    label: str
    entries: tuple[Entry, ...]

    def option(self, name: str) -> object:
        """An entry's option; the last entry that has one wins."""
        return next((v for entry in reversed(self.entries) if (v := getattr(entry, name)) is not None), None)


def cells_of(spec: TableSpec, tier: Tier) -> list[tuple[Line, Line]]:
    """The cells of a table: those that the published one has, or the whole product."""
    columns = list(spec.lines("columns", tier))
    return [(r, c) for r in spec.lines("rows", tier) for c in columns if spec.published is None or printed_like(spec, r, c) is not None]


def printed_like(spec: TableSpec, row: Line, column: Line) -> Cell | None:
    """The published number of a cell; for a method that was added, that of the method which it stands beside."""
    table = published_of(spec)
    if table is None:
        return None
    labels = (LEVELS.join(spec.added.get(entry.label, entry.label) for entry in line.entries) for line in (row, column))
    return table.cell(*labels)


def published_of(spec: TableSpec) -> PublishedTable | None:
    """The published table."""
    return None if spec.published is None else load_published(spec.published)


def conditions_of(spec: TableSpec, tier: Tier, row: Line, column: Line) -> list[Where]:
    """The conditions of a cell, all of which must hold: the table's, the tier's, and those of every entry of its row and column."""
    return [spec.where, spec.tiers[tier].where, *(entry.conditions(tier) for entry in (*row.entries, *column.entries))]


def matches(values: Mapping[str, object], conditions: Sequence[Where]) -> bool:
    """Whether a result row has what is asked for; all is compared as text, because YAML reads a task that is called 1 as a number."""

    def fits(value: object, asked: Scalar) -> bool:
        text, pattern = "" if value is None else str(value), str(asked)
        return text == pattern or (pattern != ALL and "*" in pattern and fnmatchcase(text, pattern))

    return all(any(fits(values[k], one) for one in (v if isinstance(v, list) else [v])) for where in conditions for k, v in where.items())
