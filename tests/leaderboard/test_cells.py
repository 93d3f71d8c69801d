from __future__ import annotations

import pytest
from tabular import filled, row

from conceptbench.core.errors import NotComparableError, UserInputError
from conceptbench.leaderboard.cells import FilledTable, Measured, TableCell, fill
from conceptbench.leaderboard.published import Cell
from conceptbench.leaderboard.rendering import to_csv, to_markdown
from conceptbench.leaderboard.spec_files import load_table

PSR = {"metric": "psr-1", "protocol": "psr-1@top1/judge", "role": "retained"}


def values(table: FilledTable):
    return {(c.row, c.column): None if c.measured is None else c.measured.value for c in table.cells}


def test_each_cell_finds_its_row_and_what_is_not_measured_is_empty(tmp_path):
    rows = [row(value=0.5), row(eraser="esd-x", value=0.25), row(**PSR, value=0.75), row(value=0.9, concept="church"), row(eraser="base", preset="")]
    table = filled(tmp_path, rows)
    assert values(table) == {("A", "E"): 50.0, ("A", "P"): 75.0, ("B", "E"): 25.0, ("B", "P"): None}
    assert table.cell("B", "P").measured is None and len(table.measured) == 3
    assert table.cell("A", "E").measured.row.clusters == 10


def test_what_is_so_by_definition_is_no_measurement(tmp_path):
    """Only the unmodified model's cells, only where no row is there, and only once something was measured."""
    rows = [[[{"label": "SD", "where": {"eraser": "base"}}, {"label": "B", "where": {"eraser": "esd-x"}}]]]
    columns = [[[{"label": "E", "where": {"metric": "esr-1"}}, {"label": "L", "where": {"metric": "lpips"}, "unchanged": 0}]]]
    lpips = {"metric": "lpips", "protocol": "lpips@64/judge", "unit": "distance"}
    table = filled(tmp_path, [row(eraser="base"), row(eraser="esd-x", value=0.3)], rows=rows, columns=columns)
    assert {(c.row, c.column): c.defined for c in table.cells} == {("SD", "E"): None, ("SD", "L"): (0, 0), ("B", "E"): None, ("B", "L"): None}
    assert table.cell("SD", "L").measured is None and len(table.measured) == 2
    assert "0‡" in to_markdown(table) and "unmodified model beside itself" in to_csv(table) and "1 of 4 cells are not measured" in to_markdown(table)
    measured = filled(tmp_path, [row(eraser="base", **lpips, value=0.1)], rows=rows, columns=columns)
    assert measured.cell("SD", "L").defined is None and measured.cell("SD", "L").measured.value == 0.1
    assert [c.defined for c in filled(tmp_path, [], rows=rows, columns=columns).cells] == [None] * 4


def test_several_rows_for_one_cell_are_an_error_that_names_the_fields(tmp_path):
    with pytest.raises(UserInputError) as caught:
        filled(tmp_path, [row(), row(preset="paper", value=0.7)])
    assert "2 result rows fit the cell 'A', 'E'" in str(caught.value) and "preset: mini, paper" in str(caught.value) and "task" not in caught.value.message


def test_one_measurement_in_two_runs_is_one_row(tmp_path):
    """Runs with other tasks of one suite have its base in common: only the hash of the suite, time and machine differ."""
    again = row(suite_sha256="b" * 64, environment="other", hardware="other", erase_seconds=3.0)
    assert values(filled(tmp_path, {"main": [row(suite_sha256="a" * 64)], "more": [again]}))["A", "E"] == 50.0
    with pytest.raises(UserInputError, match=r"value: 0\.5, 0\.6"):
        filled(tmp_path, {"main": [row()], "more": [again.model_copy(update={"value": 0.6})]})


def test_a_run_is_a_condition(tmp_path):
    tiers = {"mini": {"mapping": "m", "runs": [{"id": "one", "suite": "mini"}, {"id": "two", "suite": "mini"}]}}
    rows = [[[{"label": "A", "where": {"run": "one"}}, {"label": "B", "where": {"run": "two"}}]]]
    table = filled(tmp_path, {"one": [row(value=0.1)], "two": [row(value=0.2)]}, tiers=tiers, rows=rows)
    assert values(table) == {("A", "E"): 10.0, ("A", "P"): None, ("B", "E"): 20.0, ("B", "P"): None}


@pytest.mark.parametrize(
    ("option", "changes", "expected"),
    [
        ({}, {}, (50.0, 40.0, 60.0, None)),
        ({"value": "delta"}, {}, (40.0, 30.0, 50.0, None)),
        ({"value": "base_value"}, {}, (10.0, None, None, None)),
        ({"value": "spread"}, {"spread": 0.03}, (3.0, None, None, None)),
        ({"value": "n_scored"}, {}, (10.0, None, None, None)),
        ({"value": "erase_seconds"}, {"erase_seconds": 1.5}, (1.5, None, None, None)),
        ({"scale": 2}, {}, (1.0, 0.8, 1.2, None)),
        ({"spread": True}, {"spread": 0.03}, (50.0, 40.0, 60.0, 3.0)),
        ({}, {"unit": "distance"}, (0.5, 0.4, 0.6, None)),
        ({}, {"value": None, "ci_low": None, "ci_high": None, "reason": "why"}, (None, None, None, None)),
    ],
)
def test_what_is_shown_of_a_row(tmp_path, option, changes, expected):
    columns = [[[{"label": "E", "where": {"metric": "esr-1"}, **option}]]]
    found = filled(tmp_path, [row(**changes)], columns=columns).cell("A", "E").measured
    assert (found.value, found.low, found.high, found.spread) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "low", "high", "status", "outside"),
    [
        ("95.5", 94.0, 96.0, "ok", False),
        ("95.5", 96.0, 97.0, "ok", True),
        ("95.5", 90.0, 95.0, "ok", True),
        ("95.5", 95.54, 97.0, "ok", False),  # 95.5 may be 95.549
        ("95.5", 95.56, 97.0, "ok", True),
        ("100", 98.0, 99.6, "ok", False),
        ("95.5", 96.0, 97.0, "limited", None),  # a part is no measurement of the whole
        ("95.5", 96.0, 97.0, "partial", None),
        ("95.5", None, None, "ok", None),
    ],
)
def test_published_outside_of_the_interval(text, low, high, status, outside):
    printed = Cell("A", "E", text, float(text), "", None, "%", "p")
    assert TableCell("A", "E", printed, Measured(96.5, low, high, None, 1, row(status=status))).outside is outside
    assert TableCell("A", "E", None, Measured(96.5, low, high, None, 1, row())).outside is None


def esd(**changes):
    return row(eraser="esd-x", **changes)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (esd(protocol="esr-1@top1/other"), "protocol is esr-1@top1/judge in 'A', 'E' and esr-1@top1/other in 'B', 'E'"),
        (esd(suite_version="2.0"), "version is 1 in 'A', 'E' and 2 in 'B', 'E'"),
        (esd(status="development"), "status is held out in"),
    ],
)
def test_what_does_not_compare_shares_no_column(tmp_path, other, what):
    with pytest.raises(NotComparableError) as caught:
        filled(tmp_path, [row(), other])
    assert what in caught.value.message and "--force" in caught.value.hint and caught.value.exit_code == 4
    assert values(filled(tmp_path, [row(), other], force=True))["B", "E"] == 50.0


def test_what_does_compare(tmp_path):
    filled(tmp_path, [row(), esd(suite_version="1.3")])
    filled(tmp_path, [row(), row(**PSR)])  # another metric in another column
    rows = [[[{"label": "x"}], [{"label": "A", "where": {"eraser": "uce"}}]], [[{"label": "y"}], [{"label": "B", "where": {"eraser": "esd-x"}}]]]
    other = esd(protocol="esr-1@top1/other", suite_version="2.0")
    filled(tmp_path, [row(), other], rows=rows, apart=True)  # each first level is on its own
    with pytest.raises(NotComparableError):
        filled(tmp_path, [row(), other], rows=rows, methods="rows.1")


def test_methods_in_columns_are_compared_along_rows(tmp_path):
    turned = {
        "rows": [[[{"label": "E", "where": {"metric": "esr-1"}}]]],
        "columns": [[[{"label": "A", "where": {"eraser": "uce"}}, {"label": "B", "where": {"eraser": "esd-x"}}]]],
        "methods": "columns.0",
    }
    with pytest.raises(NotComparableError):
        filled(tmp_path, [row(), esd(protocol="esr-1@top1/other")], **turned)


def test_a_published_table_has_its_cells_scale_and_spread():
    rows = [
        row(task="*", eraser=e, value=v, ci_low=v - 0.01, ci_high=v + 0.01, spread=0.02) for e, v in (("base", 0.0625), ("esd-x", 0.95), ("uce-plain", 0.99))
    ]
    table = fill(load_table("kpop/2"), "mini", {"main": rows})
    assert len(table.cells) == 28 and sum(c.published is not None for c in table.cells) == 28 and len(table.measured) == 3
    found = table.cell("ESD", "ESR-1")
    assert (found.published.printed, found.measured.value, found.measured.spread, found.measured.digits) == ("95.5 ± 0.8", 95.0, 2.0, 1)
    exact = table.cell("UCE", "ESR-1")
    assert (exact.published.text, exact.measured.digits) == ("100", 1)  # as the others of its column


def test_increments_are_found_by_task_run_and_concept():
    def one(run, task, concept, metric, value, **more):
        return run, row(task=task, concept=concept, metric=metric, protocol=f"{metric}@p", value=value, eraser="sepme", unit=more.pop("unit", "rate"), **more)

    found = [
        one("apart", "d13", "sketch", "acc-1", 0.5),
        one("apart", "d13", "sketch", "lpips", 0.25, unit="distance"),
        one("in-turn", "turn-d13", "sketch", "acc-1", 0.75),
        one("apart", "d12", "sketch", "acc-1", 0.0625),
    ]
    results: dict[str, list] = {"apart": [], "in-turn": []}
    for run, made in found:
        results[run].append(made)
    table = fill(load_table("sepme/4"), "mini", results)
    shown = {k: v for k, v in values(table).items() if v is not None}
    assert shown == {
        ("SepME1 | CE", "+Δθ1+Δθ3 | ACC"): 0.5,
        ("SepME1 | CE", "+Δθ1+Δθ3 | LPIPS"): 0.25,
        ("SepME2 | CE", "+Δθ1+Δθ3 | ACC"): 0.75,
        ("SepME1 | CE", "+Δθ1+Δθ2 | ACC"): 0.0625,
    }


def test_rows_are_combined_by_hand(tmp_path):
    """SepME's last lines: sums over targets and others, with half-widths of independent intervals added as squares."""
    found = [
        row(concept="vg", role="target", value=0.4, ci_low=0.3, ci_high=0.6),
        row(concept="pc", role="unseen", value=0.9, ci_low=0.8, ci_high=0.95),
        row(concept="ce", role="unseen", value=0.7, ci_low=0.6, ci_high=0.9),
        row(concept="*", role="target", value=0.4),  # repeats its one target
    ]

    def cell(how, concepts):
        rows = [[[{"label": "A", "where": {"eraser": "uce", "concept": concepts}, "combine": how, "scale": 1}]]]
        return filled(tmp_path, found, where={}, rows=rows, columns=[[[{"label": "E", "where": {"metric": "esr-1"}}]]]).cell("A", "E").measured

    total = cell("sum", ["vg", "pc", "ce"])
    assert total.value == pytest.approx(2.0) and total.row.n_scored == 30
    assert (total.value - total.low, total.high - total.value) == pytest.approx((0.03**0.5, (0.04 + 0.0025 + 0.04) ** 0.5))
    mean = cell("mean", ["pc", "ce"])
    assert mean.value == pytest.approx(0.8) and mean.value - mean.low == pytest.approx(0.02**0.5 / 2)
    contrast = cell("contrast", ["vg", "pc", "ce", "*"])
    assert contrast.value == pytest.approx(0.4 - 1.6)
    # what is subtracted lowers the result by its upper end
    assert contrast.value - contrast.low == pytest.approx((0.01 + 0.0025 + 0.04) ** 0.5) and contrast.high - contrast.value == pytest.approx(0.06**0.5)
    assert cell("contrast-mean", ["vg", "pc", "ce"]).value == pytest.approx(0.4 - 0.8)


def test_a_combination_without_one_of_its_values_has_none(tmp_path):
    found = [row(concept="a"), row(concept="b", value=None, ci_low=None, ci_high=None, reason="no image")]
    rows = [[[{"label": "A", "where": {"eraser": "uce", "concept": ["a", "b"]}, "combine": "sum"}]]]
    one = filled(tmp_path, found, where={}, rows=rows, columns=[[[{"label": "E", "where": {"metric": "esr-1"}}]]]).cell("A", "E").measured
    assert one.value is None and one.low is None and one.row.reason == "one of the rows behind it has no value"
    with pytest.raises(UserInputError, match="say how they `combine`"):
        rows[0][0][0].pop("combine")
        filled(tmp_path, found, where={}, rows=rows, columns=[[[{"label": "E", "where": {"metric": "esr-1"}}]]])
