"""The paper tier end to end: the papers' suites on a tiny Stable Diffusion and with the real judges, both at random weights.

As many cells are measured as the paper prints. Only what makes it long is cut: steps of the sampler and of trainings, images.
"""

from __future__ import annotations

import csv

import paper_classes
import paper_tier
import pytest
from calling import call

from conceptbench.leaderboard.spec_files import load_table, table_ids
from conceptbench.leaderboard.specs import cells_of

TABLES = [name for name in table_ids() if "paper" in load_table(name).tiers]
OF_CLASSES = "selective-amnesia/1"
"""Its bases are no Stable Diffusion."""
LIMITS = {"kpop/3": 2}
"""No FID of one caption's image."""
FACELESS = ("gcds",)
"""Undefined where no image has a face; those of random weights have none."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return paper_tier.write(tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize("name", TABLES)
def test_as_many_cells_are_measured_as_are_printed(weights, name, tmp_path, monkeypatch, capsys):
    """All share a store, as papers' tables share suites."""
    paper_tier.put_in_place(weights, monkeypatch)
    base = ("--base", weights / "base")
    if name == OF_CLASSES:
        paper_classes.put_in_place(weights / "data", monkeypatch)
        base = ()
    arguments = ("table", "run", name, "--tier", "paper", *base, "--limit", LIMITS.get(name, 1), "--store", weights / "store", "--output", tmp_path / "o")
    code, out, err = call(*arguments, "--format", "csv", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0, err
    assert out == (tmp_path / "o" / "table.csv").read_text()
    cells = list(csv.DictReader(out.splitlines()))
    assert len(cells) == len(cells_of(load_table(name), "paper"))  # those of the published table, if there is one: test_specs.py
    measured = [c for c in cells if c["metric"]]
    assert [c["reason"] for c in cells if not c["metric"]] == ["by definition: the unmodified model beside itself"] * (len(cells) - len(measured))
    assert [(c["row"], c["column"], c["reason"]) for c in measured if not c["value"] and c["metric"] not in FACELESS] == []
    assert {c["status"] for c in measured} == {"limited"}
