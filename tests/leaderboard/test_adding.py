"""A method of one's own in a table."""

from __future__ import annotations

import csv

import pytest
from calling import call
from tabular import row, spec, write_spec

from conceptbench.core.errors import UserInputError
from conceptbench.leaderboard.adding import with_methods
from conceptbench.leaderboard.cells import fill
from conceptbench.leaderboard.spec_files import load_table

METHOD = """
from conceptbench.models.eraser import Eraser, EraserConfig
from conceptbench.models.erasure import Erasure

class Nothing(Eraser[EraserConfig]):
    "Changes nothing."
    name, summary, Config = "nothing-at-all", "changes nothing", EraserConfig

    def erase(self, base, request, config, ctx):
        return Erasure()
"""


def rows_of(*methods):
    return [row(eraser=e, preset=p, value=v) for e, p, v in methods]


def test_a_method_has_a_row_of_its_own(tmp_path):
    table = with_methods(spec(tmp_path), "mini", ["sdd", "kpop:mini,size=20"])
    assert [line.label for line in table.lines("rows", "mini")] == ["A", "B", "sdd-x:mini", "kpop:mini,size=20"]
    rows = rows_of(("uce", "mini", 0.1), ("esd-x", "mini", 0.2), ("sdd-x", "mini", 0.3), ("kpop", "mini,size=20", 0.4), ("kpop", "mini", 0.9))
    values = {c.row: c.measured.value for c in fill(table, "mini", {"main": rows}).cells if c.column == "E"}
    assert values == pytest.approx({"A": 10.0, "B": 20.0, "sdd-x:mini": 30.0, "kpop:mini,size=20": 40.0})


def test_another_preset_of_a_method_of_the_table_does_not_change_its_row(tmp_path):
    runs = {"mini": {"mapping": "m", "runs": [{"suite": "mini", "erasers": ["uce", "esd-x"]}]}}
    table = with_methods(spec(tmp_path, tiers=runs), "mini", ["esd-x:paper"])
    rows = rows_of(("uce", "mini", 0.1), ("esd-x", "mini", 0.2), ("esd-x", "paper", 0.3))
    assert {c.row: c.measured.value for c in fill(table, "mini", {"main": rows}).cells if c.column == "E"} == {"A": 10.0, "B": 20.0, "esd-x:paper": 30.0}
    assert table.tiers["mini"].runs[0].erasers == ("uce", "esd-x", "esd-x:paper")


def test_a_row_that_may_be_of_several_erasers_stays_what_it_is(tmp_path):
    runs = {"mini": {"mapping": "m", "runs": [{"suite": "mini", "erasers": ["uce", "ca-xattn"]}]}}
    axes = [[[{"label": "A", "where": {"eraser": "uce"}}, {"label": "B", "where": {"eraser": ["base", "ca", "ca-xattn"]}}]]]
    table = with_methods(spec(tmp_path, tiers=runs, rows=axes), "mini", ["ca"])
    rows = rows_of(("uce", "mini", 0.1), ("ca-xattn", "mini", 0.2), ("ca", "mini", 0.3))
    assert {c.row: c.measured.value for c in fill(table, "mini", {"main": rows}).cells if c.column == "E"} == {"A": 10.0, "B": 20.0, "ca:mini": 30.0}


def test_it_has_the_scale_and_the_place_of_the_method_that_it_stands_beside():
    table = with_methods(load_table("kpop/2"), "mini", ["sdd"])
    one = row(eraser="sdd-x", task="*", value=0.5, spread=0.02)
    (cell,) = [c for c in fill(table, "mini", {"main": [one]}).cells if c.measured]
    assert (cell.row, cell.column, cell.measured.value, cell.measured.spread, cell.published) == ("sdd-x:mini", "ESR-1", 50.0, 2.0, None)


def test_methods_in_columns_and_blocks():
    table = with_methods(load_table("sepme/1"), "mini", ["sdd"])
    columns = [line.label for line in table.lines("columns", "mini")]
    assert [c for c in columns if "sdd" in c] == ["sdd-x:mini | ACC", "sdd-x:mini | LPIPS", "sdd-x:mini"]
    change = row(eraser="sdd-x", metric="weight_change-l1-changed", role="model", task="vg", unit="weight", value=3.0)
    (cell,) = [c for c in fill(table, "mini", {"main": [change]}).cells if c.measured]
    assert (cell.row, cell.column, cell.measured.value) == ("‖Δθ‖p | VG", "sdd-x:mini", 3.0)


def test_it_runs_where_the_method_runs_that_it_stands_beside():
    apart, in_turn = with_methods(load_table("sepme/4"), "mini", ["sdd"]).tiers["mini"].runs
    assert "sdd" in apart.erasers and "sdd" not in in_turn.erasers
    assert all("sdd" in (run.erasers or ()) for run in with_methods(load_table("kpop/3"), "paper", ["sdd"]).tiers["paper"].runs)


@pytest.mark.parametrize(
    ("table", "eraser", "message"),
    [
        ("kpop/2", "esd-x", "esd-x:mini is in table kpop/2 already"),
        ("kpop/7", "sdd", "table kpop/7 shows no method, so that sdd has no place in it"),
        ("kpop/2", "sddd", "unknown eraser 'sddd'; did you mean 'sdd'?"),
    ],
)
def test_what_cannot_be_added(table, eraser, message):
    with pytest.raises(UserInputError, match=message):
        with_methods(load_table(table), "mini", [eraser])


def test_a_file_of_ones_own_end_to_end(tmp_path, monkeypatch, capsys):
    (tmp_path / "method.py").write_text(METHOD)
    tiers = {"mini": {"mapping": "m", "runs": [{"suite": "mini", "tasks": ["object"], "erasers": ["negative-prompt"]}]}}
    rows = [[[{"label": "A", "where": {"eraser": "negative-prompt"}}]]]
    path = write_spec(tmp_path, tiers=tiers, rows=rows)
    places = ("--store", tmp_path / "s", "--output", tmp_path / "o")
    arguments = ("table", "run", path, "-e", tmp_path / "method.py", "--limit", "1", *places, "--format", "csv")
    code, out, err = call(*arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0, err
    cells = {(c["row"], c["column"]): c for c in csv.DictReader(out.splitlines())}
    assert set(cells) == {(r, c) for r in ("A", "nothing-at-all:default") for c in ("E", "P")}
    mine = cells["nothing-at-all:default", "E"]
    assert mine["eraser"] == "nothing-at-all" and float(mine["value"]) == 0 and mine["plugin_sha256"]  # nothing was erased
