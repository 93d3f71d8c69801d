from __future__ import annotations

import csv
import gzip
import io
import os
import subprocess
import sys

import pytest

from conceptbench.core import files
from conceptbench.core.errors import UserInputError, WriteError
from conceptbench.core.results import COLUMNS, Difference, Estimate, ResultRow, from_csv, to_csv
from conceptbench.core.schemas import Sampler
from conceptbench.core.seeds import image_seed, training_seed

FIRST = [
    "suite",
    "suite_version",
    "task",
    "role",
    "concept",
    "base",
    "eraser",
    "preset",
    "metric",
    "protocol",
    "better",
    "unit",
    "value",
    "ci_low",
    "ci_high",
    "ci_kind",
    "n_planned",
    "n_scored",
    "n_failed",
    "clusters",
    "base_value",
    "delta",
    "delta_low",
    "delta_high",
    "train_seed",
    "status",
]


def row(**changes):
    values = dict(
        suite="s",
        suite_version="1.0",
        task="t",
        role="target",
        concept="*",
        base="mini",
        eraser="base",
        preset="",
        metric="esr-1",
        protocol="p",
        better="higher",
        unit="rate",
        value=0.5,
        ci_low=0.4,
        ci_high=0.6,
        ci_kind="wilson",
        n_planned=4,
        n_scored=4,
        n_failed=0,
        clusters=4,
        base_value=None,
        delta=None,
        delta_low=None,
        delta_high=None,
        train_seed=None,
        status="ok",
    )
    return ResultRow(**{**values, **changes})


def test_columns_come_first_and_in_order():
    assert list(COLUMNS[: len(FIRST)]) == FIRST


def test_csv_neutralises_formulas_and_leaves_undefined_empty():
    text = to_csv([row(eraser="=HYPERLINK(1)", value=None, reason="no image was scored"), row(eraser="@x", value=-0.25)])
    first, second = csv.DictReader(io.StringIO(text))
    assert first["eraser"] == "'=HYPERLINK(1)" and first["value"] == "" and second["eraser"] == "'@x" and second["value"] == "-0.25"


def test_rows_are_read_as_they_were_written():
    rows = [
        row(eraser="=HYPERLINK(1)", value=None, reason="'quoted', and\na new line", train_seed=3, delta_low=-0.25, network_evaluations=12),
        row(eraser="-x", preset="'=1", concept="@y", size_bytes=2**40, spread=1e-9),
    ]
    assert from_csv(to_csv(rows), "x.csv") == rows
    assert from_csv(to_csv([]), "x.csv") == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ci_kind", "ci_sort", "x.csv lacks the columns ci_kind"),
        ("ci_kind", "ci_kind,more", "x.csv has unknown columns more"),
        ("wilson", "wilson,more", "x.csv:2: 41 cells are wanted"),
        ("wilson,4", "wilson", "x.csv:2: 41 cells are wanted"),
        ("0.5", "half", "x.csv:2: value is 'half': Input should be a valid number"),
        ("0.5", "nan", "x.csv:2: value is 'nan': Input should be a finite number"),
        ("target", "goal", "x.csv:2: role is 'goal': Input should be 'target', 'retained'"),
        ("wilson,4", "wilson,", "x.csv:2: n_planned is None: Input should be a valid integer"),
    ],
)
def test_damaged_rows_are_named(old, new, message):
    with pytest.raises(UserInputError) as error:
        from_csv(to_csv([row()]).replace(old, new, 1), "x.csv")
    assert str(error.value).startswith(message)


def test_estimate_counts_failures_and_explains_itself():
    estimate = Estimate.of([1.0, None, 0.0, 1.0], ["a", "b", "c", "d"], planned=5, rate=True, unit="rate", better="higher")
    assert (estimate.planned, estimate.scored, estimate.failed, estimate.clusters) == (5, 3, 1, 3) and estimate.value == pytest.approx(2 / 3)
    nothing = Estimate.of([None], ["a"], planned=1, rate=True, unit="rate", better="higher")
    assert nothing.value is None and nothing.reason == "no image was scored"
    alone = Estimate.of([1.0, 0.0], ["a", "a"], planned=2, rate=True, unit="rate", better="higher")
    assert alone.value == 0.5 and alone.low is None and alone.kind == "none: one prompt only"


def test_difference_leaves_out_pairs_without_a_partner():
    found = Difference.of([1.0, None, 0.0], [0.0, 1.0, 0.0], ["a", "b", "c"], rate=True)
    assert found.value == pytest.approx(0.5) and found.low < 0.5 < found.high
    assert Difference.of([None], [1.0], ["a"], rate=True).value is None


def test_canonical_json_is_one_text_and_refuses_nan():
    assert files.canonical_json({"b": 1, "a": (1, 2)}) == files.canonical_json({"a": [1, 2], "b": 1}) == '{"a":[1,2],"b":1}'
    assert files.key_of(Sampler()) == files.key_of(Sampler().model_dump()) != files.key_of(Sampler(steps=3))
    with pytest.raises(ValueError, match="not a finite number"):
        files.canonical_json({"a": float("nan")})


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    files.write_text(path, "old")

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(WriteError, match=r"cannot write .*x\.json: No space left") as caught:
        files.write_text(path, "new")
    assert "--store" in caught.value.hint
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_seeds_do_not_depend_on_the_process_and_never_meet():
    code = "from conceptbench.core.seeds import *; print(image_seed(7, 'p', 0, 'heldout'), training_seed('a', 1))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "99"})
    assert out.stdout.split() == [str(image_seed(7, "p", 0, "heldout")), str(training_seed("a", 1))]
    heldout = {image_seed(7, f"p{i}", k, "heldout") for i in range(300) for k in range(3)}
    others = {image_seed(7, f"p{i}", k, "development") for i in range(300) for k in range(3)} | {training_seed(i) for i in range(300)}
    assert len(heldout) == 900 and not heldout & others


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:12] + b"\xff" * 20 + b[32:], lambda b: b"plain"])
def test_a_damaged_archive_is_an_unreadable_file(tmp_path, damage):
    packed = gzip.compress(bytes(range(97, 123)) * 20)
    (tmp_path / "a.gz").write_bytes(packed)
    (tmp_path / "a.csv").write_text("\ufeffa,b", encoding="utf-8")
    assert files.read_packed(tmp_path / "a.gz").startswith("abc") and files.read_packed(tmp_path / "a.csv") == "a,b"
    (tmp_path / "a.gz").write_bytes(damage(packed))
    with pytest.raises(OSError):
        files.read_packed(tmp_path / "a.gz")
