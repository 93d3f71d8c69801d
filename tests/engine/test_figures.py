from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from conceptbench.core.schemas import Suite, Task
from conceptbench.engine.figures import bars, curves, extremes, matrix, scatter, svg, tables
from conceptbench.engine.figures.numbers import show_number, show_signed
from conceptbench.engine.records import Record

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>\"'&</script>"


def row(who, metric, role, concept, value, low=None, high=None, *, task="one", better="higher", unit="rate", protocol=None, n=24, reason="", **more):
    return {
        **{"who": who, "preset": "mini", "task": task, "role": role, "concept": concept, "metric": metric, "protocol": protocol or f"{metric}@x/judge"},
        **{"better": better, "unit": unit, "value": value, "ci_low": low, "ci_high": high, "n_scored": n, "reason": reason, **more},
    }


def suite(tasks=((("ab",), ("ef", "gh")), (("ef",), ("ab", "ij"))), erased="esr-1", kept="psr-1", metrics=("esr", "psr")):
    return Suite.model_validate(
        {
            **{"name": "s", "version": "1.0", "title": "t", "base": "b", "sampler": {}, "seed": 0, "concepts": "c"},
            "tasks": [{"id": f"t{i}", "targets": a, "retained": b, "prompts": {"set": "p"}} for i, (a, b) in enumerate(tasks)],
            "metrics": [{"metric": m} for m in metrics],
            "headline": {"erased": erased, "kept": kept},
        }
    )


def drawn(markup):
    return ElementTree.fromstring(str(markup))


def texts(root):
    return [e.text for e in root.iter(f"{SVG}text")]


# -- numbers -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (None, "rate", "–"),
        (0.125, "rate", "12.5"),
        (31.247, "score", "31.25"),
        (0.0123, "weight", "0.012"),
        (0.0, "weight", "0.00"),
        (-0.0123, "score", "-0.012"),
        (0.0893, "distance", "0.089"),
        (0.1, "distance", "0.100"),
        (1e-7, "weight", "1e-07"),
        (123456.7, "weight", "123,457"),
        (23456789.0, "bytes", "23,456,789"),
        (12.0, "tensors", "12"),
    ],
)
def test_numbers(value, unit, shown):
    assert show_number(value, unit) == shown


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [(0.5, "rate", "+50.0"), (-0.5, "rate", "−50.0"), (0.0, "rate", "0.0"), (-0.0001, "rate", "0.0"), (None, "rate", "–"), (-1e-7, "weight", "−1e-07")],
)
def test_signed_numbers(value, unit, shown):
    assert show_signed(value, unit) == shown


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 179), (-3.2, 4.1), (0.0123, 0.0187), (5e-9, 6e-6), (1e5, 9e7)])
def test_ticks_are_round_and_inside(low, high):
    found = svg.ticks(low, high)
    assert 2 <= len(found) <= 9 and low - 1e-9 * high <= found[0] and found[-1] <= high * (1 + 1e-9)
    steps = np.diff(found)
    assert np.allclose(steps, steps[0], rtol=1e-3)
    assert round(steps[0] / 10.0 ** math.floor(math.log10(steps[0]) + 1e-9), 3) in (1, 2, 5)


# -- scatter -------------------------------------------------------------------------------------------------------------
def test_scatter_turns_rates_upwards_and_leaves_out_what_is_none():
    rows = [
        row("base", "psr-1", "retained", "*", 0.9, 0.8, 1.0),
        row("base", "ner", "target", "*", 0.7, 0.6, 0.9, better="lower"),
        row("a", "psr-1", "retained", "*", 0.5, None, None),
        row("a", "ner", "target", "*", None, better="lower", reason="no image"),
    ]
    (point,) = scatter.points_of(rows, "psr-1", "ner", ["base", "a"])
    assert (point.label, point.kept, point.kept_range) == ("base", 0.9, (0.8, 1.0))
    assert point.erased == pytest.approx(0.3) and point.erased_range == pytest.approx((0.1, 0.4))
    assert scatter.axis_of(rows, "ner", "target").title == "100 − ner %" and scatter.axis_of(rows, "psr-1", "retained").title == "psr-1 %"


def test_scatter_draws_where_the_values_are():
    points = [scatter.Point(HOSTILE, 0.25, (0.0, 1.0), 0.75, (None, None)), scatter.Point("b", 1.0, (None, None), 0.0, (None, None))]
    root = drawn(scatter.scatter_svg(points, scatter.Axis("k"), scatter.Axis(HOSTILE), {"b": "#123456"}))
    circles = list(root.iter(f"{SVG}circle"))
    (x0, y0), (x1, y1) = [(float(c.get("cx")), float(c.get("cy"))) for c in circles]
    left, right, top, bottom = scatter.LEFT, scatter.WIDTH - scatter.RIGHT, scatter.TOP, scatter.HEIGHT - scatter.BOTTOM
    assert (x0, y0) == pytest.approx((left + 0.25 * (right - left), bottom - 0.75 * (bottom - top))) and (x1, y1) == pytest.approx((right, bottom))
    assert circles[1].get("fill") == "#123456" and root.find(f".//{SVG}script") is None
    assert any(HOSTILE in t for t in texts(root)) and scatter.scatter_svg([], scatter.Axis("k"), scatter.Axis("e"), {}) == ""


def test_scatter_of_other_units_runs_towards_the_better_end():
    rows = [
        *(row(who, "fid", "retained", "*", v, better="lower", unit="distance") for who, v in (("a", 20.0), ("b", 120.0))),
        *(row(who, "entropy", "target", "*", v, v - 0.1, v + 0.1, unit="nats") for who, v in (("a", 2.0), ("b", 1.0))),
        row("c", "fid", "retained", "*", None, better="lower", unit="distance"),
    ]
    points = scatter.points_of(rows, "fid", "entropy", ["a", "b", "c"])
    assert [(p.label, p.kept, p.erased) for p in points] == [("a", 20.0, 2.0), ("b", 120.0, 1.0)]
    kept, erased = scatter.axis_of(rows, "fid", "retained"), scatter.axis_of(rows, "entropy", "target")
    assert (kept.low, kept.high, kept(15.0), kept(125.0)) == (15.0, 125.0, 1.0, 0.0) and not kept.rate
    assert (erased.low, erased.high) == pytest.approx((0.84, 2.16)) and erased(2.16) == 1.0
    root = drawn(scatter.scatter_svg(points, kept, erased, {}))
    (xa, ya), (xb, yb) = [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter(f"{SVG}circle")]
    assert xa > xb and ya < yb  # less FID and more entropy: to the upper right
    assert "kept: fid  →" in texts(root) and {"40", "120"} <= set(texts(root))
    assert any(t.text == "a: kept 20, erased 2" for t in root.iter(f"{SVG}title"))


def test_labels_of_a_sweep_can_be_told_apart():
    names = ["base", "sa-full:mini,lam=1", "sa-full:mini,gamma=0,lam=1", "sa-full:mini,gamma=0,lam=100"]
    points = [scatter.Point(n, 0.5, (None, None), 0.5, (None, None)) for n in names]
    shown = texts(drawn(scatter.scatter_svg(points, scatter.Axis("k"), scatter.Axis("e"), {})))
    assert {"base", "sa-full:mini,lam=1", "…lam=1", "…lam=100"} <= set(shown)


# -- matrix --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("role", "better", "expected"),
    [
        ("retained", "higher", (0.2, 0.1, 0.4)),  # PSR: the share that is seen
        ("retained", "lower", (0.8, 0.6, 0.9)),
        ("target", "higher", (0.8, 0.6, 0.9)),  # ESR: the share that is not seen
        ("target", "lower", (0.2, 0.1, 0.4)),  # exposure rate: the share that is seen
    ],
)
def test_still_there_is_on_one_scale(role, better, expected):
    assert matrix.still_there(row("a", "m", role, "c", 0.2, 0.1, 0.4, better=better)) == pytest.approx(expected)


def test_matrix_by_hand():
    rows = []
    for task, who, concept, role, value in [
        ("t0", "base", "ab", "target", 0.25),
        ("t0", "base", "ef", "retained", 1.0),
        ("t0", "base", "gh", "retained", 0.5),
        ("t1", "base", "ef", "target", 0.9),
        ("t1", "base", "ab", "retained", 0.1),
        ("t1", "base", "ij", "retained", 0.875),
        ("t0", "a", "ab", "target", 1.0),
        ("t0", "a", "ef", "retained", 0.75),
        ("t1", "a", "ef", "target", None),
        ("t1", "a", "ab", "retained", 0.625),
        ("t1", "a", "*", "retained", 0.111),
    ]:
        rows.append(row(who, "esr-1" if role == "target" else "psr-1", role, concept, value, task=task, reason="" if value is not None else "it failed"))
    rows.append(row("a", "nothing", "retained", "gh", 0.999, task="t0"))  # no headline: not in the matrix
    a, b = matrix.matrices(rows, suite(), ["a", "b"])
    assert (a.eraser, b.eraser) == ("a", "b") and a.columns == ("ab", "ef", "gh", "ij")
    assert [line.label for line in a.lines] == ["base", "ab", "ef"]
    # the base's value of a concept is that of the first task that measures it
    assert [[c.text for c in line.cells] for line in a.lines] == [["75", "100", "50", "88"], ["0", "75", "", ""], ["62", "–", "", ""]]
    assert [[c.text for c in line.cells] for line in b.lines][1:] == [["", "", "", ""]] * 2
    assert [[c.own for c in line.cells] for line in a.lines] == [[False] * 4, [True, False, False, False], [False, True, False, False]]
    assert a.lines[2].cells[1].tooltip == "it failed" and "100 − esr-1" in a.lines[0].cells[0].tooltip and "n 24" in a.lines[0].cells[0].tooltip


def test_lines_of_a_matrix_have_names_of_their_own():
    asked = [("one", ["ab"], {}), ("two", ["ab", "ef"], {}), ("turn", ["ab", "ef"], {"mode": "in-turn"}), ("back", ["ef", "ij"], {"restored": ["ij"]})]
    tasks = tuple(Task.model_validate({"id": i, "targets": targets, "retained": ["gh"], "prompts": {"set": "p"}, **more}) for i, targets, more in asked)
    rows = [
        row("a", "esr-1", "target", "ef", 1.0, task="back"),
        row("a", "psr-1", "restored", "ij", 0.75, task="back"),
        row("a", "psr-1", "retained", "gh", 0.5, task="back"),
    ]
    (found,) = matrix.matrices(rows, suite().model_copy(update={"tasks": tasks}), ["a"])
    assert [line.label for line in found.lines] == ["base", "ab", "two", "turn", "back"]
    assert [c.text for c in found.lines[-1].cells] == ["0", "50", "75"] and [c.own for c in found.lines[-1].cells] == [True, False, False]
    assert found.columns == ("ef", "gh", "ij") and found.lines[-1].cells[2].tooltip.endswith("psr-1, restored")
    assert found.lines[-1].tooltip == "task back: ef, ij erased (together), ij brought back"
    assert found.lines[3].tooltip == "task turn: ab, ef erased (in-turn)"


def test_tables_have_the_columns_of_every_role_in_order():
    (task,) = suite(tasks=((("ab",), ("gh",)),)).tasks
    rows = [row("a", "psr-1", role, "*", v, task=task.id, status="ok", ci_kind="") for role, v in (("unseen", 0.1), ("restored", 0.2), ("retained", 0.3))]
    sorted_rows = tables.in_suite_order(rows, suite(), task, ["a"])
    assert [c.role for c in tables.table(sorted_rows, ["a"], suite()).columns] == ["retained", "restored", "unseen"]


def test_matrix_needs_rates_and_rows():
    assert matrix.matrices([row("a", "esr-1", "target", "ab", 0.3), row("a", "psr-1", "retained", "ef", 31.0, unit="score")], suite(), ["a"]) == []
    assert matrix.matrices([], suite(), ["a"]) == []


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_shade_can_be_read():
    for value in np.linspace(-0.1, 1.1, 121):
        light, dark = sorted((luminance(c) for c in matrix.shade(value)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, value
    backgrounds = [luminance(matrix.shade(v)[0]) for v in np.linspace(0, 1, 11)]
    assert backgrounds == sorted(backgrounds, reverse=True)


# -- bars ----------------------------------------------------------------------------------------------------------------
def test_bars_are_as_long_as_their_values():
    rows = [
        row("base", "psr-1", "retained", "ef", 0.9),
        row("a", "psr-1", "retained", "ef", 0.25, 0.1, 0.5),
        row(HOSTILE, "psr-1", "retained", "ef", 1.0),
        row("a", "psr-1", "retained", HOSTILE, None, reason="why & how"),
        row("a", "psr-1", "retained", "*", 0.5),
    ]
    groups = bars.groups_of(rows, "psr-1", "retained", ["base", HOSTILE, "a"], ["ef", HOSTILE, "unmeasured"])
    assert [(g.concept, g.base, [r["who"] for r in g.rows]) for g in groups] == [("ef", 0.9, [HOSTILE, "a"]), (HOSTILE, None, ["a"])]
    root = drawn(bars.bars_svg(groups, "psr-1", {"a": "#123456"}))
    widths = [float(r.get("width")) for r in root.iter(f"{SVG}rect")]
    assert widths == pytest.approx([bars.PLOT, 0.25 * bars.PLOT]) and [r.get("fill") for r in root.iter(f"{SVG}rect")][1] == "#123456"
    tips = [e.text for e in root.iter(f"{SVG}title")]
    assert "a, ef: 25.0 (10.0 – 50.0), n 24" in tips and f"a, {HOSTILE}: why & how" in tips and "base, ef: 90.0" in tips
    whisker = next(e for e in root.iter(f"{SVG}line") if e.get("opacity") == "0.75")
    assert [float(whisker.get(k)) for k in ("x1", "x2")] == pytest.approx([bars.LEFT + 0.1 * bars.PLOT, bars.LEFT + 0.5 * bars.PLOT])
    dashed = next(e for e in root.iter(f"{SVG}line") if e.get("stroke-dasharray"))
    assert float(dashed.get("x1")) == pytest.approx(bars.LEFT + 0.9 * bars.PLOT) and "psr-1 % (higher is better)" in texts(root)


def test_bars_of_scores_have_an_axis_of_their_own():
    rows = [row("a", "m", "target", "ab", v, v - 1, v + 1, unit="score", better="lower") for v in (-3.0,)]
    root = drawn(bars.bars_svg(bars.groups_of(rows, "m", "target", ["base", "a"], ["ab"]), "m", {}))
    (rect,) = root.iter(f"{SVG}rect")
    assert float(rect.get("width")) == pytest.approx(bars.PLOT * 3 / 4, abs=0.1) and "m (lower is better)" in texts(root)
    assert bars.bars_svg([], "m", {}) == ""


# -- curves --------------------------------------------------------------------------------------------------------------
def points(values, **others):
    return [{"step": i, "loss": v, **{k: o[i] for k, o in others.items()}} for i, v in enumerate(values)]


def test_panels_hold_what_can_be_drawn():
    found = curves.panels_of(
        {
            "a": points([3.0, 2.0, 1.0], norm=[1.0, None, 2.0]),
            "once": points([0.5]),
            "b": points([None, 1.0, math.nan], z=[True, "x", math.inf]),
            "empty": [],
        }
    )
    assert [(p.name, [c.label for c in p.curves]) for p in found] == [("loss", ["a"]), ("norm", ["a"])]
    assert found[1].curves[0].points == ((0, 1.0), (1, None), (2, 2.0))
    assert curves.panels_of({}) == [] and curves.panels_of({"a": [{"loss": 1.0}, {"loss": 2.0}]}) == []


def test_logarithmic_where_positive_and_wide():
    assert (
        curves.is_logarithmic([1, 32]) and not curves.is_logarithmic([1, 31]) and not curves.is_logarithmic([0, 1e6]) and not curves.is_logarithmic([-1, 1e6])
    )


def ends_of(path):
    return [tuple(map(float, p.split())) for p in re.split("[ML]", path) if p]


@pytest.mark.parametrize("values", [[1.0, 10.0, 100.0, 1000.0], [1.0, 2.0, 4.0, 3.0], [-1.0, 0.0, 5.0, 1e4], [2.0, 2.0, 2.0, 2.0]])
def test_curves_run_through_their_points(values):
    (panel,) = curves.panels_of({"a": points(values)})
    root = drawn(curves.panel_svg(panel, {"a": "#123456"}))
    (path,) = root.iter(f"{SVG}path")
    xy = np.array(ends_of(path.get("d")))
    warped = np.log10(values) if curves.is_logarithmic(values) else np.array(values)
    inside = (xy >= (curves.LEFT, curves.TOP)) & (xy <= (curves.WIDTH - curves.RIGHT, curves.HEIGHT - curves.BOTTOM))
    assert path.get("stroke") == "#123456" and inside.all()
    assert np.allclose(xy[:, 0], np.linspace(curves.LEFT, curves.WIDTH - curves.RIGHT, 4), atol=0.06)
    if np.ptp(warped):  # higher is further up, in proportion
        assert np.allclose((xy[0, 1] - xy[:, 1]) / np.ptp(xy[:, 1]), (warped - warped[0]) / np.ptp(warped), atol=0.01)
    assert "step" in texts(root) and ("loss, logarithmic" in texts(root)) == curves.is_logarithmic(values)


def test_a_gap_breaks_the_line():
    (panel,) = curves.panels_of({HOSTILE: points([1.0, 2.0, None, 3.0, 4.0])})
    root = drawn(curves.panel_svg(panel, {}))
    (path,) = root.iter(f"{SVG}path")
    assert re.sub("[^ML]", "", path.get("d")) == "MLML" and [e.text for e in root.iter(f"{SVG}title")] == [HOSTILE]


def test_running_mean_against_numpy():
    values = np.random.default_rng(0).normal(size=60)
    smooth = [v for _, v in curves.running_mean(tuple(enumerate(values)), 11)]
    assert np.allclose(smooth[5:-5], np.convolve(values, np.ones(11) / 11, "valid")) and smooth[0] == pytest.approx(values[:6].mean())
    assert [v for _, v in curves.running_mean(((0, 1.0), (1, None), (2, 5.0)), 3)] == [1.0, None, 5.0]


def test_long_curves_are_averaged_in_blocks():
    values = np.random.default_rng(0).normal(size=1000)
    (panel,) = curves.panels_of({"a": points(values.tolist())})
    found = panel.curves[0].points
    assert len(found) == 200 and np.allclose([v for _, v in found], values.reshape(200, 5).mean(1)) and found[1][0] == 7
    assert len(list(drawn(curves.panel_svg(panel, {})).iter(f"{SVG}path"))) == 2  # as it is, and smooth


def test_a_curve_of_one_step_only_does_not_divide_by_zero():
    panel = curves.Panel("loss", (curves.Curve("a", ((3.0, 1.0), (3.0, 2.0))),))
    assert "3" in texts(drawn(curves.panel_svg(panel, {})))


# -- extremes ------------------------------------------------------------------------------------------------------------
def record(number, protocol, value, *, role="target", eraser="a", concept="ab"):
    return Record("one", role, concept, eraser, "mini", f"p{number}", 0, number, f"prompt {number}", f"k{number}", {protocol: value})


def test_lowest_and_highest_by_hand():
    rows = [row("a", "clip", "target", "*", 3.0, unit="score", better="lower")]
    values = [5.0, 1.0, None, 9.0, 2.0, 7.0, math.nan, 2.0, 8.0]
    records = [record(i, "clip@x/judge", v) for i, v in enumerate(values)] + [record(99, "clip@x/judge", -1.0, role="retained")]
    (found,) = extremes.extremes_of(records, rows, {("a", "mini"): "A"}, ["base", "A"])
    assert (found.kind, found.metric, found.role, found.better) == ("ends", "clip", "target", "lower")
    assert [(s.who, s.label, [t.record.prompt_id for t in s.shown]) for s in found.series] == [
        ("A", "lowest", ["p1", "p4", "p7"]),
        ("A", "highest", ["p3", "p8", "p5"]),
    ]


@pytest.mark.parametrize("count", range(9))
def test_no_image_is_at_both_ends(count):
    shown = [extremes.Shown(record(i, "m", 0.0), 0.0) for i in range(count)]
    lowest, highest = extremes.ends(shown, 3)
    seeds = [s.record.seed for s in (*lowest, *highest)]
    assert len(set(seeds)) == len(seeds) == (1 if count == 1 else min(6, count // 2 * 2))


@pytest.mark.parametrize(("better", "bad"), [("higher", 0.0), ("lower", 1.0), ("neither", None)])
def test_failures_are_what_the_direction_says(better, bad):
    rows = [row("a", "m", "target", "*", 0.5, better=better)]
    records = [record(i, "m@x/judge", float(i % 2), eraser=e) for e in ("base", "a") for i in range(40)]
    found = extremes.extremes_of(records, rows, {("a", "mini"): "a", ("base", "mini"): "base"}, ["base", "a"])
    if bad is None:
        assert found == []
        return
    (series,) = found[0].series  # the base did not try to erase anything
    assert series.who == "a" and series.label == "20 of 40" and {s.value for s in series.shown} == {bad}
    seeds = [s.record.seed for s in series.shown]
    assert len(seeds) == extremes.FAILURES and seeds == sorted(set(seeds)) and seeds[-1] > 30  # from all over, not the first six


def test_a_rate_that_is_no_0_or_1_an_image_shows_its_ends():
    records = [record(i, "m@x/judge", v) for i, v in enumerate((0.0, 0.25, 1.0))]
    (found,) = extremes.extremes_of(records, [row("a", "m", "target", "*", 0.5)], {("a", "mini"): "a"}, ["a"])
    assert found.kind == "ends"


# -- tables --------------------------------------------------------------------------------------------------------------
def test_rows_and_columns_follow_the_suite():
    kind = suite(tasks=((("ab",), ("ef", "gh")),), metrics=("esr", "psr", "clip_score"))
    rows = [
        row("b", "clip_score", "retained", "*", 1.0, task="t0"),
        row("b", "psr-1", "retained", "gh", 1.0, task="t0"),
        row("b", "psr-1", "retained", "ef", 1.0, task="t0"),
        row("b", "psr-1", "retained", "*", 1.0, task="t0"),
        row("b", "esr-1", "target", "*", 1.0, task="t0"),
        row("a", "other", "target", "*", 1.0, task="t0"),
        row("a", "esr-1", "target", "*", 1.0, task="t0", n=20),
        row("a", "esr-1", "target", "*", 1.0, task="t1"),
    ]
    found = tables.in_suite_order(rows, kind, kind.tasks[0], ["base", "a", "b"])
    assert [(r["who"], r["concept"], r["metric"]) for r in found] == [
        ("a", "*", "esr-1"),
        ("a", "*", "other"),
        ("b", "*", "esr-1"),
        ("b", "*", "psr-1"),
        ("b", "*", "clip_score"),
        ("b", "ef", "psr-1"),
        ("b", "gh", "psr-1"),
    ]
    made = tables.table([r for r in found if r["concept"] == "*"], ["base", "a", "b"], kind)
    assert [(c.metric, c.role, c.count) for c in made.columns] == [
        ("esr-1", "target", ""),
        ("psr-1", "retained", "n 24"),
        ("clip_score", "retained", "n 24"),
        ("other", "target", "n 24"),
    ]
    assert [(line.who, [c is not None for c in line.cells]) for line in made.lines] == [("a", [True, False, False, True]), ("b", [True, True, True, False])]


def test_two_protocols_of_one_metric_are_told_apart():
    rows = [row("a", "lpips", "target", "*", 0.1, protocol=f"lpips@pairs/{j}", unit="distance") for j in ("alex", "vgg")]
    made = tables.table(rows, ["a"], suite())
    assert [c.detail for c in made.columns] == ["pairs/alex", "pairs/vgg"] and all(made.lines[0].cells)


def test_costs_fill_in_what_no_metric_measures():
    costs = [
        {"eraser": "a:mini", "task": "t0", "seconds": 2.0, "peak_memory_mb": 10.0},
        {"eraser": "x:y", "task": "t0", "seconds": 1.0, "peak_memory_mb": None},
    ]
    found = tables.cost_rows(costs, [], "t0", {"a:mini": "a"})
    assert [(r["who"], r["metric"], r["value"]) for r in found] == [("a", "time to erase", 2.0), ("a", "peak memory", 10.0)]
    assert len(tables.table(found, ["a"], suite()).columns) == 2 and tables.cost_rows(costs, [], "t1", {"a:mini": "a"}) == []
    measured = [row("a", "cost-seconds", "model", "*", 3.0, unit="seconds")]
    assert [r["unit"] for r in tables.cost_rows(costs, measured, "t0", {"a:mini": "a"})] == ["MB"]


# -- svg -----------------------------------------------------------------------------------------------------------------
def test_every_piece_of_text_is_escaped():
    root = drawn(svg.drawing(10, 10, HOSTILE, [svg.text(1, 2, HOSTILE), svg.group([svg.line(0, 0, 1, 1)], HOSTILE)]))
    assert root.get("aria-label") == HOSTILE and texts(root) == [HOSTILE] and root.find(f".//{SVG}title").text == HOSTILE
    assert [e.tag for e in root.iter()] == [f"{SVG}{t}" for t in ("svg", "text", "g", "title", "line")]


def test_colours_are_stable_and_repeat():
    names = [f"e{i}" for i in range(20)]
    found = svg.colours(names)
    assert len({found[n] for n in names[:18]}) == 18 and found["e18"] == found["e0"] and svg.shortened("abcdef", 4) == "abc…"
    assert svg.colours(["a"]) == {"a": svg.COLOURS[0]}
