"""Suites of prompt sets that never ship, without them and with them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from calling import cli  # noqa: F401
from foreign import ROWS, data, few, fill, write_rows  # noqa: F401
from world import write_suite

from conceptbench.core.errors import MissingDataError
from conceptbench.core.manifests import load_suite
from conceptbench.engine.doctor import Doctor
from conceptbench.engine.needs import check_data, foreign_sets, reference_folders
from conceptbench.engine.pictures import folder_digest

FID = {"metric": "fid", "judge": "foreign-means", "options": {"beside": "coco-30k", "n": 4}, "concepts": ["ef"]}
TASKS = [
    {"id": "erased", "targets": ["ab"], "prompts": {"set": "few"}},
    {"id": "kept", "targets": ["ab"], "unseen": ["ef"], "prompts": {"set": "", "role": "retained"}},
]
METRICS = [{"metric": "esr", "judge": "colour"}, {"metric": "psr", "judge": "colour"}, {"metric": "nothing", "judge": "colour"}, FID]


@pytest.fixture
def suite(few, tmp_path):
    """Erases without drawing what is kept, and keeps without drawing what is erased."""
    folder = tmp_path / "suite"
    tasks = [TASKS[0], {**TASKS[1], "prompts": {**TASKS[1]["prompts"], "set": str(folder / "prompts.csv")}}]
    return write_suite(folder, tasks=tasks, metrics=METRICS, base="some/model", erasers=["negative-prompt"])


def test_what_is_needed(suite, few, data):
    loaded = load_suite(str(suite))
    assert foreign_sets(loaded) == ["few"] and [(f.name, n) for f, n in reference_folders(loaded)] == [("coco-30k", 4)]
    assert foreign_sets(load_suite("mini")) == [] and reference_folders(load_suite("mini-metrics")) == []
    with pytest.raises(MissingDataError, match="'few' does not ship"):
        check_data(loaded)
    write_rows(few, ROWS)
    with pytest.raises(MissingDataError, match="'coco-30k' does not ship"):
        check_data(loaded)
    fill(data / "coco-val2014")
    check_data(loaded)


def test_the_doctor(suite, few, data):
    found = {c.kind: c for c in Doctor().examine(str(suite))}
    assert {k: c.ready for k, c in found.items()} == {"prompts": False, "data": True, "base": False, "reference": False, "judge": True, "eraser": True}
    assert found["prompts"].name == "few" and str(few) in found["prompts"].detail and "hf download owner/few" in found["prompts"].remedy
    assert found["reference"].name == "coco-30k" and "unzip" in found["reference"].remedy
    write_rows(few, ROWS[:2])
    fill(data / "coco-val2014")
    found = {c.kind: c for c in Doctor().examine(str(suite))}
    assert "2 rows, not 3" in found["prompts"].detail and found["reference"].ready and found["data"].ready
    write_rows(few, ROWS)
    assert {c.kind for c in Doctor().examine(str(suite)) if not c.ready} == {"base"}


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_refused_before_a_base_is_looked_for(verb, suite, few, cli, tmp_path):
    code, out, err = cli(verb, suite, "--store", tmp_path / "store")
    assert code == 2 and not out and str(few) in err and "hf download owner/few few_prompts.csv --repo-type dataset" in err and "some/model" not in err


def test_validate_and_doctor_say_what_is_not_here(suite, few, cli, tmp_path):
    code, out, _ = cli("validate", suite)
    assert code == 0 and "not checked: prompt set 'few'" in out and "hf download owner/few" in out
    code, out, _ = cli("doctor", suite, "--store", tmp_path / "store")
    assert code == 2 and "prompts few: the prompt set 'few' does not ship" in out and "hf download owner/few" in out


def test_run(suite, few, data, folders, cli, tmp_path):
    """A task without kept images and one without erased ones; the erasure is made once, and the report stands."""
    write_rows(few, ROWS)
    fill(data / "coco-val2014")
    code, _, err = cli("run", suite, "--base", folders["sd1"], "--store", tmp_path / "store", "--output", tmp_path / "out")
    assert code == 0, err
    with (tmp_path / "out" / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(r["task"], r["role"]) for r in rows if r["concept"] == "*"} == {("erased", "target"), ("kept", "unseen")}
    (esr,) = [r for r in rows if (r["metric"], r["eraser"], r["concept"]) == ("esr-1", "negative-prompt", "*")]
    assert esr["n_planned"] == esr["n_scored"] == "3"
    (fid,) = [r for r in rows if (r["metric"], r["eraser"], r["concept"]) == ("fid", "negative-prompt", "*")]
    digest = folder_digest(data / "coco-val2014", 4)
    assert (fid["task"], fid["protocol"]) == ("kept", f"fid@frechet-beside-coco-30k-4~{digest[:8]}/foreign-means")
    assert fid["better"] == "lower" and np.isfinite(float(fid["value"]))
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())) and (tmp_path / "out" / "report.html").stat().st_size
