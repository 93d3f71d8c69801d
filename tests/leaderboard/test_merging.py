"""Boards only grow: what is there stays, a number is added once, and another value for it stops everything."""

from __future__ import annotations

import csv
import gzip
import io

import pytest
from calling import cli  # noqa: F401 - a fixture
from submitting import Copy, copy, submission  # noqa: F401 - fixtures

from conceptbench.core.errors import UserInputError
from conceptbench.core.results import COLUMNS, ResultRow, from_csv, to_csv
from conceptbench.leaderboard.board import Board, Placed, board_problems, row_problems
from conceptbench.leaderboard.merging import merge


def row(**changes):
    values = {
        **{"suite": "s", "suite_version": "1.0", "task": "t", "role": "target", "concept": "*", "base": "b", "eraser": "e", "preset": "p"},
        **{
            "metric": "esr-1",
            "protocol": "esr-1@top1/j",
            "better": "higher",
            "unit": "rate",
            "value": 0.5,
            "ci_low": 0.25,
            "ci_high": 0.75,
            "ci_kind": "wilson",
        },
        **{"n_planned": 8, "n_scored": 8, "n_failed": 0, "clusters": 8, "base_value": 0.0, "delta": 0.5, "delta_low": 0.25, "delta_high": 0.75},
        **{"train_seed": 0, "status": "ok", "suite_sha256": "a" * 64, "base_sha256": "b" * 64, "erasure_sha256": "c" * 64, "plugin_sha256": "d" * 64},
    }
    return ResultRow.model_validate({**values, **changes})


def board(path, *rows):
    path.write_text(to_csv(rows))
    return path


def test_two_peoples_boards(tmp_path, cli):
    mine = board(tmp_path / "mine.csv", row(), row(concept="dog"))
    yours = board(tmp_path / "yours.csv", row(environment="other", hardware="other", erase_seconds=9.0), row(eraser="f", value=0.625), row(eraser="=g"))
    into = tmp_path / "board.csv"
    code, out, err = cli("leaderboard", "merge", mine, yours, "--into", into)
    assert code == 0, out + err
    assert f"{mine}: 2 rows added" in out and f"{yours}: 2 rows added" in out and "1 rows were there already and agree" in out
    assert [(r.eraser, r.concept, r.value) for r in from_csv(into.read_text(), "board")] == [
        ("e", "*", 0.5),
        ("e", "dog", 0.5),
        ("f", "*", 0.625),
        ("=g", "*", 0.5),
    ]
    assert "'=g" in into.read_text()  # no formula


def test_what_is_there_stays_byte_by_byte(tmp_path):
    into = tmp_path / "board.csv"
    board(into, row())
    before = into.read_bytes().replace(b"esr-1,", b'"esr-1",', 1).removesuffix(b"\n")  # as somebody's editor wrote it
    into.write_bytes(before)
    merged = merge([board(tmp_path / "x.csv", row(), row(eraser="f"))], into)
    assert not merged.problems and merged.repeated == 1
    assert into.read_bytes() == before + b"\n" + to_csv([row(eraser="f")]).partition("\n")[2].encode()
    again = into.read_bytes()
    assert merge([tmp_path / "x.csv"], into).repeated == 2 and into.read_bytes() == again


def test_packed_boards_grow_too(tmp_path):
    into = tmp_path / "board.csv.gz"
    merge([board(tmp_path / "x.csv", row())], into)
    before = into.read_bytes()
    merge([board(tmp_path / "y.csv", row(eraser="f"))], into)
    assert into.read_bytes().startswith(before) and gzip.decompress(into.read_bytes()).decode() == to_csv([row(), row(eraser="f")])


@pytest.mark.parametrize(
    "change",
    [{"value": 0.500001}, {"ci_low": 0.3}, {"n_scored": 7, "n_failed": 1}, {"delta": None, "delta_low": None, "delta_high": None}, {"status": "limited"}],
)
def test_a_conflict_writes_nothing(tmp_path, cli, change):
    into = board(tmp_path / "board.csv", row(concept="cat"), row())
    before = into.read_bytes()
    other = board(tmp_path / "x.csv", row(eraser="new"), row(**change))
    code, out, _ = cli("leaderboard", "merge", other, "--into", into, "--allow", "limited")
    name = next(iter(change))
    assert code == 2 and into.read_bytes() == before and "nothing was written" in out
    assert f"{other}:3: esr-1@top1/j of target * by e:p [t]: {name} " in out and f"in {into}:3" in out


def test_what_is_measured_anew_is_no_conflict(tmp_path):
    time = {"metric": "cost-seconds", "protocol": "cost-seconds@wall", "unit": "seconds", "role": "model"}
    into = board(tmp_path / "board.csv", row(**time, value=3.0))
    merged = merge([board(tmp_path / "x.csv", row(**time, value=4.0))], into)
    assert not merged.problems and merged.repeated == 1


@pytest.mark.parametrize(
    "change",
    [
        {"suite_version": "2.0"},
        {"task": "u"},
        {"role": "retained"},
        {"base_sha256": "0" * 64},
        {"preset": "q"},
        {"protocol": "esr-1@top1/k"},
        {"train_seed": 1},
        {"erasure_sha256": "0" * 64},
    ],
)
def test_what_makes_another_number(tmp_path, change):
    merged = merge([board(tmp_path / "x.csv", row(), row(**change, value=0.75))], tmp_path / "board.csv")
    assert not merged.problems and sum(merged.added.values()) == 2


def test_two_sources_that_contradict(tmp_path):
    a, b = board(tmp_path / "a.csv", row()), board(tmp_path / "b.csv", row(value=0.625))
    merged = merge([a, b], tmp_path / "board.csv")
    assert str(merged.problems[0]) == f"{b}:2: esr-1@top1/j of target * by e:p [t]: value 0.625 against 0.5 in {a}:2" and not (tmp_path / "board.csv").exists()


def test_submissions(copy, submission, tmp_path, cli):
    into = tmp_path / "board.csv"
    code, out, _ = cli("leaderboard", "merge", submission, copy.path, "--into", into, "--allow", "limited")
    assert code == 0 and f"{submission}: 70 rows added" in out and f"{copy.path}: 0 rows added" in out and "70 rows were there already" in out
    assert into.read_bytes() == (submission / "leaderboard.csv").read_bytes()
    copy.set("value", "0.9", eraser="base", metric="psr-1", concept="*")
    code, out, _ = cli("leaderboard", "merge", copy.path, "--into", into, "--allow", "limited")
    assert code == 2 and "it was changed after it was exported" in out and "value 0.9 against 1 in" in out
    assert cli("leaderboard", "merge", submission, "--into", tmp_path / "other.csv")[0] == 2 and not (tmp_path / "other.csv").exists()  # limited


def test_boards_of_another_shape(tmp_path):
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS[::-1], lineterminator="\n")
    writer.writeheader()
    writer.writerows(csv.DictReader(io.StringIO(to_csv([row()]))))
    (tmp_path / "board.csv").write_text(out.getvalue())
    x = board(tmp_path / "x.csv", row(eraser="f"))
    assert "its columns are in another order" in str(merge([x], tmp_path / "board.csv").problems[0])
    with pytest.raises(UserInputError, match=r"board.txt is no board"):
        merge([x], tmp_path / "board.txt")
    assert "not readable" in str(merge([tmp_path / "nowhere.csv"], tmp_path / "new.csv").problems[0])


# -- rows by themselves ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, None),
        ({"value": None, "ci_low": None, "ci_high": None, "n_scored": 0, "reason": "no image was scored"}, None),
        ({"n_scored": 5, "reason": "3 of 8 images do not count"}, None),
        ({"n_scored": 7, "n_failed": 1}, None),
        ({"n_scored": 7}, "n_scored + n_failed is 7 + 0, and n_planned is 8: the row is not complete"),
        ({"n_scored": 4, "reason": "3 of 8 images do not count"}, "4 + 0 and 3 that do not count, and n_planned is 8"),
        ({"clusters": -1}, "clusters is -1: a count is not negative"),
        ({"status": "done"}, "status is 'done', and not one of ok, limited"),
        ({"status": "failed"}, "status is failed: the erasure was not made"),
        ({"status": "development"}, "status is development: tuning prompts"),
        ({"value": None}, "value is empty, and reason does not say why"),
        ({"value": 1.5}, "value is 1.5, and a rate is from 0 to 1"),
        ({"ci_kind": ""}, "ci_kind is empty"),
        ({"ci_low": None}, "ci_low is None and ci_high is 0.75: an interval has two ends"),
        ({"delta_low": 0.9}, "delta_low is 0.9, above delta_high, 0.75"),
        ({"suite_sha256": ""}, "suite_sha256 is empty"),
        ({"plugin_sha256": "xyz"}, "plugin_sha256 is 'xyz', and a sha256 has 64"),
        ({"better": "more"}, "better is 'more', and not one of higher, lower, neither"),
        ({"protocol": "psr-1@top1/j"}, "does not begin with its metric, 'esr-1'"),
    ],
)
def test_rows_by_themselves(change, expected):
    found = list(row_problems(row(**change)))
    assert (not found) if expected is None else (len(found) == 1 and expected in found[0]), found


def test_allowed_statuses_pass(tmp_path):
    placed = [Placed(tmp_path, 2, row(status="limited")), Placed(tmp_path, 3, row(status="partial", n_scored=3, eraser="f"))]
    assert not board_problems(Board(tmp_path, placed), ("limited", "partial")) and len(board_problems(Board(tmp_path, placed))) == 2
