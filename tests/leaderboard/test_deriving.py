"""Every kind of number is derived again: of images, sets beside all references, probes, derived ones, splits and the sampler floor."""

from __future__ import annotations

import csv
import json

import kinds
import pytest
from running import carry_out
from submitting import Copy

from conceptbench.engine.provenance import write_results
from conceptbench.leaderboard.checking import check
from conceptbench.leaderboard.exporting import export

FAR = {"metric": "far", "judge": "colour"}
METRICS = (
    *(FAR, {**FAR, "options": {"beside": "others"}}, {**FAR, "options": {"beside": "grey", "n": 6}}),
    *({"metric": "weight_probe"}, {"metric": "gap"}, {"metric": "brightness", "judge": "colour", "options": {"least": 0.5}}),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory, folders):
    """The suite's file and a submission of it."""
    folder = tmp_path_factory.mktemp("kinds")
    suite = kinds.suite_with(folder, *METRICS, splits=["one", "two"], floor={"steps": 3, "guidance": 3.0})
    outcome, runner = carry_out(suite, folders, folder / "store", ["uce"])
    write_results(outcome, runner.measures.judges, folder / "run", runner.store, [])
    export([folder / "run"], folder / "submission")
    return suite, folder / "submission"


def problems(path, suite):
    return [str(p) for p in check(path, suites=[str(suite)]).problems]


def test_every_kind_is_derived(made):
    suite, submission = made
    found = check(submission, suites=[str(suite)])
    assert not found.problems, found.problems[:5]
    with (submission / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    kept = [r for r in rows if not r["metric"].startswith(("cost", "weight_change"))]
    assert found.rows == len(rows) and found.derived == len(kept)
    assert {r["metric"] for r in kept} >= {"far-base", "far-others", "far-grey", "weight_probe", "weight_probe-twice", "gap", "brightness", "lpips"}
    assert "*" in {r["task"] for r in kept} and any(r["eraser"].startswith("base-under") for r in kept)
    assert any("do not count" in r["reason"] for r in kept)


def test_a_suite_that_is_not_shipped_must_be_given(made):
    (found,) = {p.partition(": run")[2] for p in map(str, check(made[1]).problems)}
    assert "unknown suite 'tiny'" in found


@pytest.mark.parametrize("metric", ["far-base", "far-others", "far-grey", "weight_probe", "gap"])
def test_a_changed_value_of_each_kind(made, tmp_path, metric):
    copy = Copy(made[1], tmp_path / "copy")
    cells = copy.cells()
    at = {c: i for i, c in enumerate(cells[0])}
    line = next(i for i, r in enumerate(cells) if r[at["metric"]] == metric and r[at["value"]])
    true = cells[line][at["value"]]
    cells[line][at["value"]] = "0.123"
    copy.write_cells(cells)
    copy.sign()
    (found,) = problems(copy.path, made[0])
    assert f":{line + 1}: value is 0.123, and the evidence gives {true}" in found


def test_changed_evidence(made, tmp_path):
    copy = Copy(made[1], tmp_path / "copy")
    path = copy.path / "evidence/0-run/probes.json"
    document = json.loads(path.read_text())
    one = next(f for f in document["found"] if f["model"] != "base")
    one["values"][""] = [v + 1 for v in one["values"][""]]
    path.write_text(json.dumps(document))
    copy.sign()
    assert all("weight_probe@sum" in p for p in problems(copy.path, made[0])) and problems(copy.path, made[0])
    path.write_text("{")
    copy.sign()
    assert any("probes.json: not readable" in p for p in problems(copy.path, made[0]))
    shard = next((copy.path / "evidence/0-run/judged").rglob("*.npz"))
    shard.write_bytes(shard.read_bytes()[:-9])
    assert any(str(shard) in p and "its sha256 is" in p for p in problems(copy.path, made[0]))


def test_a_store_that_lost_answers_leaves_rows_without_evidence(made, tmp_path):
    (tmp_path / "store").mkdir()
    run = made[1].parent / "run"
    lost = export([run], tmp_path / "sub", tmp_path / "store")
    reasons = {w.protocol.partition("@")[0]: w.reason for w in lost.manifest.without_evidence}
    assert "lacks what colour said of" in reasons["far-base"] and "not in the run's store" in reasons["weight_probe"]
    found = check(tmp_path / "sub", suites=[str(made[0])])
    assert not found.problems, found.problems[:3]
    assert found.derived > 50 and any("far-base" in n and "lacks what colour said" in n for n in found.notes)
