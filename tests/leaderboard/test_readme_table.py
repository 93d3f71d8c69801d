"""The table in the README is what the kept results give."""

from __future__ import annotations

from pathlib import Path

from conceptbench.leaderboard.cells import fill
from conceptbench.leaderboard.rendering import to_markdown
from conceptbench.leaderboard.run_results import read_rows
from conceptbench.leaderboard.spec_files import load_table

ROOT = Path(__file__).parents[2]


def test_the_table_in_the_readme_is_kept_whole():
    rows = read_rows(ROOT / "leaderboard" / "results" / "mini-kpop-2.csv.gz")
    table = fill(load_table("kpop/2"), "mini", {"main": rows})
    assert all(c.measured is not None for c in table.cells)
    assert to_markdown(table).split("\n", 2)[2].strip() in (ROOT / "README.md").read_text()


def test_all_cells_of_sepmes_table_4_are_kept():
    rows = {run: read_rows(ROOT / "leaderboard" / "results" / f"mini-sepme-4-{run}.csv.gz") for run in ("apart", "in-turn")}
    assert all(c.measured is not None and c.measured.value is not None for c in fill(load_table("sepme/4"), "mini", rows).cells)
