"""Submissions whose parts do not belong together are refused, although every hash in the manifest fits its file."""

from __future__ import annotations

import pytest
from submitting import copy, submission  # noqa: F401 - fixtures

from conceptbench.leaderboard.checking import check

RECORDS = "evidence/0-run/records.csv"
METHOD = {"eraser": "negative-prompt"}
ESR = {**METHOD, "metric": "esr-1", "concept": "church"}


def refused(copy, text, allowed=("limited",)):
    copy.sign()
    found = [str(p) for p in check(copy.path, allowed).problems]
    assert any(text in p for p in found), found


def test_another_base(copy):
    copy.set("base_sha256", "4" * 64)
    copy.edit(lambda d: d["runs"][0].update(base_sha256="4" * 64))
    refused(copy, f"base mini has sha256 {'4' * 64}, and the installed one ")


def test_a_method_without_a_line_up(copy):
    copy.set("plugin_sha256", "3" * 64, **METHOD)
    copy.edit(lambda d: d["runs"][0].update(erasers=[]))
    refused(copy, "its plugin_sha256 cannot be compared")


def test_weights_without_an_erasure(copy):
    copy.set("erasure_sha256", "3" * 64, **METHOD)
    copy.edit(lambda d: d["runs"][0].update(erasures=[]))
    refused(copy, "has no erasure of task object by negative-prompt:default")


def test_images_of_other_weights(copy):
    copy.set("erasure_sha256", "6" * 64, **METHOD)
    copy.edit(lambda d: d["runs"][0]["erasures"][0].update(sha256="6" * 64))
    refused(copy, f"are not those of weights {'6' * 64}")


def test_images_of_the_base_under_another_name(copy):
    cells = copy.cells(RECORDS)
    image = cells[0].index("image")
    first = cells[1][image]
    for r in cells[1:]:
        r[image] = first
    copy.write_cells(cells, RECORDS)
    refused(copy, "image keys, e.g. ")


def test_a_model_that_is_left_out(copy):
    for name, column in (("leaderboard.csv", "eraser"), (RECORDS, "eraser")):
        cells = copy.cells(name)
        copy.write_cells([r for r in cells if r[cells[0].index(column)] != "negative-prompt"], name)
    refused(copy, "negative-prompt:default has no records of task object")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_values_that_are_no_numbers(copy, value):
    column = next(c for c in copy.cells(RECORDS)[0] if c.startswith("clip_score@"))
    lines = copy.set(column, value, RECORDS, **METHOD)
    refused(copy, f"records.csv:{lines[0]}: {column} is {value}, and a value is a finite number")


def test_a_record_that_is_there_twice(copy):
    cells = copy.cells(RECORDS)
    copy.write_cells([*cells, cells[-1]], RECORDS)
    refused(copy, "has two records")


def test_a_formula(copy):
    lines = copy.set("hardware", "=1+1")
    refused(copy, f"leaderboard.csv:{lines[0]}: hardware is '=1+1', which is written as \"'=1+1\"")


def test_a_cost_that_differs_within_a_model(copy):
    copy.set("erase_seconds", "12345", **ESR)
    refused(copy, "erase_seconds is")


def test_a_failed_row_with_a_figure(copy):
    copy.set("status", "failed", **ESR)
    refused(copy, "status is failed, and value is 1", ("limited", "failed"))
