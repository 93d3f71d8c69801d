"""Submissions are made of runs, and of nothing else."""

from __future__ import annotations

import csv
import json

import pytest
from calling import cli  # noqa: F401 - a fixture
from submitting import submission  # noqa: F401 - a fixture

from conceptbench.core.errors import UserInputError
from conceptbench.leaderboard.exporting import export


@pytest.fixture(scope="module")
def run(submission):
    return submission.parent / "run"


@pytest.fixture
def changed(run, tmp_path):
    """A copy of the run's folder whose results.json somebody edited."""

    def make(change):
        folder = tmp_path / "changed"
        folder.mkdir()
        for name in ("leaderboard.csv", "records.csv"):
            (folder / name).write_bytes((run / name).read_bytes())
        document = json.loads((run / "results.json").read_text())
        change(document)
        (folder / "results.json").write_text(json.dumps(document))
        return folder

    return make


def test_what_is_in_it(submission, run):
    manifest = json.loads((submission / "manifest.json").read_text())
    assert (submission / "leaderboard.csv").read_bytes() == (run / "leaderboard.csv").read_bytes()
    assert set(manifest["files"]) == {"leaderboard.csv", "evidence/0-run/records.csv"} and manifest["status"] == {"limited": 70}
    (part,) = manifest["runs"]
    assert (part["suite"]["name"], part["suite"]["tasks"], part["suite"]["limited"]) == ("mini", ["object"], 1)
    assert set(part["judges"]) == {"mini-classifier", "mini-clip", "mini-lpips"}
    assert {w["protocol"].partition("@")[0] for w in manifest["without_evidence"]} >= {"cost-seconds", "weight_change-relative-l2"}
    assert str(run.parent) not in json.dumps(manifest)  # nobody's folders
    # the rows are what the records say, by hand
    with (submission / "evidence/0-run/records.csv").open() as file:
        own = [r for r in csv.DictReader(file) if r["eraser"] == "negative-prompt" and r["role"] == "retained"]
    protocol = next(c for c in own[0] if c.startswith("psr-1"))
    with (submission / "leaderboard.csv").open() as file:
        row = next(r for r in csv.DictReader(file) if (r["eraser"], r["protocol"], r["concept"]) == ("negative-prompt", protocol, "*"))
    assert float(row["value"]) == pytest.approx(sum(float(r[protocol]) for r in own) / 6, rel=1e-5)


def test_a_submission_is_replaced_and_other_folders_are_not(cli, run, tmp_path):
    for _ in range(2):
        code, out, err = cli("leaderboard", "export", run, "--output", tmp_path / "sub")
        assert code == 0 and "70 rows (70 limited) of 1 runs; 2 files" in out and "7 rows without evidence" in err
    (tmp_path / "sub" / "notes.txt").write_text("mine")
    code, _, err = cli("leaderboard", "export", run, "--output", tmp_path / "sub")
    assert code == 2 and "is not empty and not a submission: it has notes.txt" in err and (tmp_path / "sub" / "manifest.json").exists()


def test_numbers_of_several_runs_are_there_once(run, changed, tmp_path):
    made = export([run, changed(lambda d: None)], tmp_path / "sub")
    assert made.repeated == 70 and made.manifest.rows == 70 and len(made.manifest.runs) == 2


def test_runs_that_contradict_are_refused(run, changed, tmp_path):
    other = changed(lambda d: None)
    text = (other / "leaderboard.csv").read_text().splitlines(keepends=True)
    cells = text[1].split(",")
    cells[12] = "0.25"
    (other / "leaderboard.csv").write_text("".join([text[0], ",".join(cells), *text[2:]]))
    with pytest.raises(UserInputError, match=r"changed/leaderboard.csv:2: .* value 0.25 against 0 in .*run/leaderboard.csv:2"):
        export([run, other], tmp_path / "sub")
    assert not (tmp_path / "sub").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d["canonical"]["judges"]["mini-clip"].pop("labels"), "an older version wrote it"),
        (lambda d: d["canonical"].update(limited=2), "its rows are of suite"),
        (lambda d: d.update(format="other"), "is not the results of a run"),
        (lambda d: d["canonical"].pop("base"), "no readable results"),
        (lambda d: d["canonical"]["metrics"][0].update(source_sha256="6" * 64), r"the source of 1 metric\(s\) was another when it ran: esr-1@"),
        (lambda d: d["canonical"].pop("metrics"), "metric.*was another when it ran"),
        (lambda d: d["canonical"].update(metrics=[1]), "no readable results"),
        (lambda d: d.update(store="/nowhere", findings=[{"key": "x"}]), "the store of .* is not at /nowhere"),
    ],
)
def test_what_is_no_run(changed, tmp_path, change, expected):
    with pytest.raises(UserInputError, match=expected):
        export([changed(change)], tmp_path / "sub")


def test_no_folder_of_a_run(tmp_path):
    with pytest.raises(UserInputError, match="no readable results in"):
        export([tmp_path], tmp_path / "sub")
