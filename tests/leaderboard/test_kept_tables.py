"""Every table's mini form was measured: its results are kept whole, and the documents show them as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from calling import call
from tabular import write_spec

from conceptbench.leaderboard.cells import fill
from conceptbench.leaderboard.rendering import to_markdown
from conceptbench.leaderboard.run_results import kept_results, read_rows
from conceptbench.leaderboard.spec_files import load_table, table_ids

ROOT = Path(__file__).parents[2]
TABLES = [name for name in table_ids() if "mini" in load_table(name).tiers]
DOCUMENT = ROOT / "leaderboard" / "results" / "tables" / "README.md"


def kept(name):
    spec = load_table(name)
    return fill(spec, "mini", {run: read_rows(path) for run, path in kept_results(name, [r.id for r in spec.tiers["mini"].runs]).items()})


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_is_kept_and_shown(name):
    table = kept(name)
    assert [(c.row, c.column) for c in table.cells if c.defined is None and (c.measured is None or c.measured.value is None)] == []
    assert {r.status for r in table.measured} == {"ok"}
    assert to_markdown(table).strip() in DOCUMENT.read_text(), f"conceptbench table show {name} --kept --format markdown"


@pytest.mark.parametrize("name", ["kpop/2", "sepme/4"])
def test_the_tables_of_the_readme_are_the_kept_ones(name):
    assert to_markdown(kept(name)).split("\n", 2)[2].strip() in (ROOT / "README.md").read_text()


def test_kept_files_are_of_tables():
    named = {f"{name.replace('/', '-')}-{run.id}.csv.gz" for name in TABLES for run in load_table(name).tiers["mini"].runs}
    assert {p.name for p in DOCUMENT.parent.glob("*.gz")} == named


def test_the_command(monkeypatch, capsys):
    code, out, err = call("table", "show", "kpop/2", "--kept", "--format", "markdown", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0 and out == to_markdown(kept("kpop/2")), err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("selective-amnesia/4", "--tier", "paper"), "leave out --results, --output and --tier"),
        (("kpop/2", "--results", "x"), "leave out --results"),
    ],
)
def test_what_is_not_kept(arguments, expected, monkeypatch, capsys):
    code, _, err = call("table", "show", *arguments, "--kept", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2 and expected in err


def test_a_table_of_ones_own_has_no_kept_results(tmp_path, monkeypatch, capsys):
    code, _, err = call("table", "show", write_spec(tmp_path), "--kept", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2 and "no results of table mine/1 are kept" in err and "conceptbench table run mine/1" in err
