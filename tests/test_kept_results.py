"""The results that are kept in leaderboard/results are whole, and its README repeats them rightly."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from conceptbench.core.manifests import load_suite
from conceptbench.core.results import ResultRow, from_csv

FOLDER = Path(__file__).parents[1] / "leaderboard" / "results"
FILES = sorted(FOLDER.glob("*.csv.gz"))
README = (FOLDER / "README.md").read_text()


def rows_of(path: Path) -> list[ResultRow]:
    return from_csv(gzip.decompress(path.read_bytes()).decode(), path.name)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_rows_are_whole(path):
    rows = rows_of(path)
    suite = load_suite(rows[0].suite)
    asked, found = {t.id for t in suite.tasks}, {r.task for r in rows}
    assert found - {"*"} <= asked and len({r.suite_sha256 for r in rows}) == 1 and {r.suite for r in rows} == {suite.name}
    for row in rows:
        assert row.status == "ok" and row.n_scored + row.n_failed <= row.n_planned, row
        assert row.base_sha256 and row.environment and row.hardware
        assert row.eraser == "base" or (row.plugin_sha256 and (row.erasure_sha256 or row.task == "*")), row
    keys = [(r.task, r.role, r.concept, r.eraser, r.preset, r.metric, r.protocol) for r in rows]
    assert len(keys) == len(set(keys))


def test_readme_names_every_file():
    assert FILES and set(re.findall(r"`([\w-]+\.csv\.gz)`", README)) == {p.name for p in FILES}


def tables():
    """The README's tables of methods: (name of the file, method, {column: cell})."""
    file = header = ""
    for line in README.splitlines():
        named = re.match(r"^### .*`([\w-]+\.csv\.gz)`", line)
        if named:
            file = named[1]
        if not line.startswith("|"):
            header = ""
        elif file:
            cells = [c.strip() for c in line.strip("|").split("|")]
            if not header:
                header = cells
            elif not set(cells[0]) <= set("-: "):
                yield file, cells[0].strip("`"), dict(zip(header[1:], cells[1:], strict=True))


def value_of(rows: list[ResultRow], method: str, column: str) -> str:
    """A cell of the README: ``METRIC of ROLE``, the mean over the suite's tasks, or ``METRIC of ROLE, TASK`` or ``METRIC of ROLE, TASK, CONCEPT``."""
    what, _, where = column.partition(", ")
    metric, _, role = what.partition(" of ")
    task, _, concept = where.partition(", ")
    eraser, _, preset = ("base", "", "") if method == "base" else method.partition(":")
    values = [
        (r.value, r.unit)
        for r in rows
        if (r.eraser, r.preset, r.metric, r.role, r.concept) == (eraser, preset, metric, role, concept or "*") and (r.task == task if task else r.task != "*")
    ]
    mean = sum(v for v, _ in values if v is not None) / len(values)
    return f"{100 * mean:.0f}" if values[0][1] == "rate" else f"{mean:.3f}"


def test_readme_repeats_the_files():
    rows = {p.name: rows_of(p) for p in FILES}
    cells = [(file, method, column, cell) for file, method, columns in tables() for column, cell in columns.items()]
    assert len(cells) > 100
    for file, method, column, cell in cells:
        assert cell == value_of(rows[file], method, column), (file, method, column)
