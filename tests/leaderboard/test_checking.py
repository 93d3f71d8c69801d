"""Submissions that somebody changed are refused with the reason; each test changes one thing."""

from __future__ import annotations

from pathlib import Path

import pytest
from calling import cli  # noqa: F401 - a fixture
from submitting import copy, submission  # noqa: F401 - fixtures

from conceptbench.leaderboard.checking import check

KEPT = sorted((Path(__file__).parents[2] / "leaderboard" / "results").glob("*.csv.gz"))
ALLOWED = ("limited",)
ESR = {"eraser": "negative-prompt", "metric": "esr-1", "concept": "church"}
CLIP = {"eraser": "negative-prompt", "metric": "clip_score", "concept": "*", "role": "retained"}
RECORDS = "evidence/0-run/records.csv"


def problems(copy):
    return [str(p) for p in check(copy.path, ALLOWED).problems]


def only(copy, *texts):
    """The one problem, which has these texts in it."""
    found = problems(copy)
    assert len(found) == 1 and all(t in found[0] for t in texts), found
    return found[0]


# -- as it was -------------------------------------------------------------------------------------------------------
def test_a_submission_of_a_run_passes(cli, submission):
    code, out, err = cli("leaderboard", "check", submission, "--allow", "limited")
    assert code == 0, out + err
    assert "no problems; 70 rows, 63 of them derived again" in out and "never drawn by the model" in out
    assert "7 rows were not derived again" in out and "weights or the machine" in out


def test_a_limited_run_is_refused(cli, submission):
    code, out, _ = cli("leaderboard", "check", submission)
    assert code == 2 and f"{submission}/leaderboard.csv:2: status is limited: fewer prompts" in out and "... and 30 more problems" in out
    code, _, err = cli("leaderboard", "check", submission, "--allow", "limted")
    assert code == 2 and "did you mean 'limited'?" in err


def test_the_help_says_what_it_cannot_find(cli):
    code, out, _ = cli("leaderboard", "check", "--help")
    assert code == 0 and "never drawn by the" in out


# -- figures; the manifest's hashes fit them again -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("where", "column", "value", "expected"),
    [
        (ESR, "value", "0.9", "value is 0.9, and the evidence gives 1"),
        (ESR, "delta", "0.9", "delta is 0.9, and the evidence gives 1"),
        (ESR, "base_value", "0.1", "base_value is 0.1, and the evidence gives 0"),
        (ESR, "n_failed", "0.0", ""),
        (CLIP, "ci_low", "70", "ci_low is 70, and the evidence gives"),
        (CLIP, "delta_high", "70", "delta_high is 70, and the evidence gives"),
        (CLIP, "spread", "1", "spread is 1, and the evidence gives"),
        ({**ESR, "eraser": "base"}, "value", "0.5", "value is 0.5, and the evidence gives 0"),
        (ESR, "clusters", "2", "clusters is 2, and the evidence gives 1"),
        (ESR, "judge_sha256", "0" * 64, "judge_sha256 is 0000"),
        (ESR, "suite_sha256", "0" * 64, "suite_sha256 is 0000"),
        (ESR, "better", "lower", "better is lower, and the evidence gives higher"),
        (ESR, "reason", "0 of 1 images do not count", "the evidence gives none"),
    ],
)
def test_a_changed_cell(copy, where, column, value, expected):
    (line,) = copy.set(column, value, **where)
    copy.sign()
    if not expected:  # another way to write the same
        assert not problems(copy)
        return
    only(copy, f"{copy.path}/leaderboard.csv:{line}: ", expected)


def test_a_value_in_the_sixth_digit(copy):
    at = {c: i for i, c in enumerate(copy.cells()[0])}
    value = next(r[at["value"]] for r in copy.cells() if all(r[at[k]] == v for k, v in CLIP.items()))
    (line,) = copy.set("value", value[:-1] + ("1" if value[-1] != "1" else "2"), **CLIP)
    copy.sign()
    only(copy, f":{line}: value is ", f"gives {value}")


def test_every_problem_is_there_at_once(copy):
    copy.set("value", "0.9", **ESR)
    copy.set("ci_low", "70", **CLIP)
    copy.sign()
    assert len(problems(copy)) == 2


# -- rows and records ------------------------------------------------------------------------------------------------
def test_a_partial_run(copy):
    copy.set("status", "partial", **ESR)
    copy.sign()
    found = problems(copy)
    assert any("status is partial: not everything that was planned is scored" in p for p in found) and any("69 limited" in p for p in found)


def test_a_run_whose_records_are_partial(copy):
    cells = copy.cells(RECORDS)
    copy.write_cells(cells[:-1], RECORDS)
    copy.sign()
    assert any("negative-prompt:default: 1 of 7 images have no record, e.g. Kubo" in p for p in problems(copy))


def test_rows_that_are_left_out(copy):
    cells = copy.cells()
    at = cells[0].index("metric")
    copy.write_cells([r for r in cells if r[at] != "nothing"])
    copy.sign()
    copy.edit(lambda d: d.update(rows=len(copy.cells()) - 1, status={"limited": len(copy.cells()) - 1}))
    found = problems(copy)
    assert len(found) == 18 and all("the row is missing: nothing@top1/mini-classifier" in p for p in found)


def test_a_row_that_is_there_twice(copy):
    cells = copy.cells()
    copy.write_cells([*cells, cells[3]])
    copy.sign()
    found = problems(copy)
    assert len(found) == 2 and f":{len(cells) + 1}: " in found[0] and "is there already, in line 4" in found[0] and "manifest says 70 rows" in found[1]


def test_records_that_are_changed_with_their_rows(copy):
    protocol = copy.cells(RECORDS)[0][10]
    copy.set(protocol, "0", RECORDS, eraser="negative-prompt", concept="church")
    for column, value in (("value", "0"), ("delta", "0")):
        for concept in ("*", "church"):
            copy.set(column, value, **{**ESR, "concept": concept})
    found = problems(copy)
    assert len(found) == 2 and all("its sha256 is" in p and "it was changed after it was exported" in p for p in found)
    copy.sign()
    assert not problems(copy)  # a forger who makes everything fit: what the notes say that no check can detect


def test_records_of_other_prompts(copy):
    copy.set("prompt", "a house", RECORDS, eraser="base", concept="house")
    copy.set("seed", "5", RECORDS, eraser="base", concept="truck")
    copy.sign()
    found = problems(copy)
    assert len(found) == 2 and "is retained 'a house', and the suite's is retained" in found[0] and "has seed 5, and the suite" in found[1]


# -- hashes and versions ---------------------------------------------------------------------------------------------
def test_another_metric_version(copy):
    copy.edit(lambda d: d["runs"][0]["metrics"][0].update(sha256="1" * 64))
    only(copy, "manifest.json: run evidence/0-run: metric esr-1@", "has source 1111", "another version of it")


def test_another_protocol(copy):
    (line,) = copy.set("protocol", "esr-1@top1-of-58+10+7way/mini-classifier", **ESR)
    copy.sign()
    found = problems(copy)
    assert (
        f":{line}: protocol is 'esr-1@top1-of-58+10+7way/mini-classifier', which suite mini 1.1 does not measure; the nearest is 'esr-1@top1-of-58+10+8way"
        in found[0]
    )
    assert "the row is missing: esr-1@top1-of-58+10+8way/mini-classifier of target church" in found[1] and len(found) == 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda r: r["suite"].update(sha256="2" * 64), "suite mini 1.1 has sha256 2222"),
        (lambda r: r["suite"].update(version="0.9"), "it is of suite mini 0.9, and installed is 1.1"),
        (lambda r: r["suite"].update(name="mimi"), "unknown suite 'mimi'"),
        (lambda r: r["erasers"][0].update(sha256="3" * 64), "eraser negative-prompt:default has source 3333"),
        (lambda r: r["judges"]["mini-clip"].update(sha256="4" * 64), "judge mini-clip has weights 4444"),
        (lambda r: r["judges"]["mini-clip"].update(preprocessing="none"), "judge mini-clip prepares images by 'none', and the installed one by"),
        (lambda r: r["metrics"].pop(0), "the manifest does not say which version of metric esr-1@"),
        (lambda r: r.update(base_sha256="5" * 64), "base_sha256 is"),
        (lambda r: r["suite"].update(tasks=["objects"]), "unknown task of suite mini 'objects'; did you mean 'object'?"),
        (lambda r: r["suite"].update(limited=None), "suite mini 1.1 has sha256"),
    ],
)
def test_a_forged_manifest(copy, change, expected):
    copy.edit(lambda d: change(d["runs"][0]))
    found = problems(copy)
    assert any(expected in p for p in found), found


@pytest.mark.parametrize(
    ("column", "expected"),
    [("plugin_sha256", "plugin_sha256 is 6666"), ("erasure_sha256", "erasure_sha256 is 6666"), ("base_sha256", "base_sha256 is 6666")],
)
def test_a_forged_hash_in_a_row(copy, column, expected):
    (line,) = copy.set(column, "6" * 64, **ESR)
    copy.sign()
    found = problems(copy)
    assert any(f":{line}: {expected}" in p for p in found), found


def test_forged_weights_in_every_row_of_a_model(copy):
    copy.set("erasure_sha256", "7" * 64, eraser="negative-prompt")
    copy.sign()
    assert any("erasure_sha256" in p for p in problems(copy))


def test_rows_of_another_suite_version(copy):
    (line,) = copy.set("suite_version", "1.0", **ESR)
    copy.sign()
    assert f":{line}: it is of suite mini 1.0, and the submission has evidence of mini 1.1" in problems(copy)[0]


def test_evidence_that_is_said_to_be_missing(copy):
    copy.set("value", "0.9", **ESR)
    copy.sign()
    protocol = copy.cells()[1][copy.cells()[0].index("protocol")]
    copy.edit(lambda d: d["without_evidence"].append({"folder": "evidence/0-run", "protocol": protocol, "rows": 4, "reason": "too large"}))
    only(copy, f"the manifest says that {protocol} has no evidence, and records always give it")


# -- files -----------------------------------------------------------------------------------------------------------
def test_files_that_are_missing_or_strange(copy):
    (copy.path / RECORDS).rename(copy.path / "more.csv")
    found = problems(copy)
    assert any("the manifest names this file, and it is not there" in p for p in found) and any(
        "more.csv: this file is not in the manifest" in p for p in found
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d.update(format="other"), "format: Input should be 'conceptbench-submission-1'"),
        (lambda d: d.update(filse={}), "filse: unknown key; did you mean 'files'?"),
        (lambda d: d["files"].update({"../x": "0" * 64}), "'../x' is outside the submission"),
        (lambda d: d["runs"][0].update(folder="../x"), "'../x' is outside the submission"),
        (lambda d: d["runs"][0]["judges"]["mini-clip"].pop("labels"), "labels"),
    ],
)
def test_a_manifest_that_is_none(copy, change, expected):
    copy.edit(change)
    found = problems(copy)
    assert any(expected in p for p in found), found


def test_no_manifest(tmp_path):
    (found,) = check(tmp_path).problems
    assert "manifest.json: not readable" in str(found) and "leaderboard export" in str(found)


# -- bare boards -----------------------------------------------------------------------------------------------------
def test_kept_boards_pass_their_schema(cli):
    assert KEPT
    code, out, _ = cli("leaderboard", "check", *KEPT)
    assert code == 0, out
    assert out.count("only the schema was checked") == len(KEPT) == out.count("no problems")


def test_a_bare_board_that_is_damaged(cli, copy):
    path = copy.path / "leaderboard.csv"
    copy.set("value", "high", **ESR)
    cells = copy.cells()
    copy.write_cells([*cells, cells[1][:-1]])
    code, out, _ = cli("leaderboard", "check", path, "--allow", "limited")
    assert code == 2 and "value is 'high'" in out and f"{path}:{len(cells) + 1}: {len(cells[0])} cells are wanted, and there are {len(cells[0]) - 1}" in out
