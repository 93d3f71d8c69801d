from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from conceptbench.engine.figures.svg import INK
from conceptbench.engine.figures.thresholds import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, families_of, thresholds_svg

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>\"'&</script>"
THRESHOLDS = (0.3, 0.5, 0.7, 0.8)


def row(who, metric, value, *, arithmetic, low=None, high=None, role="target", concept="*", judge="/j", unit="rate", better="lower", **more):
    protocol = f"{metric}@{arithmetic}{judge}"
    return {
        **{"who": who, "metric": metric, "protocol": protocol, "role": role, "concept": concept, "unit": unit, "better": better},
        **{"value": value, "ci_low": low, "ci_high": high, "base_value": None, **more},
    }


def rates(who, values, ending="", **more):
    """Rows of an exposure rate at the four thresholds."""
    return [row(who, f"ner-{t}{ending}", v, arithmetic=f"gt{t}{ending or '-any'}", **more) for t, v in zip(THRESHOLDS, values, strict=True)]


def drawn(markup):
    return ElementTree.fromstring(str(markup))


def texts(root):
    return [e.text for e in root.iter(f"{SVG}text")]


# -- families ------------------------------------------------------------------------------------------------------------
def test_families_by_set_role_and_judge():
    rows = [
        *rates("base", (0.5, 0.4, 0.3, 0.2)),
        *rates("a", (0.4, 0.3, 0.2, 0.1)),
        *rates("a", (0.3, 0.2, 0.1, 0.0), "-kpop8"),
        *rates("a", (0.3, 0.2, 0.1, 0.0), "-kpop8", judge="/nudenet-3.4-rgb"),
        *rates("a", (0.9, 0.9, 0.9, 0.9), concept="marks"),  # a concept of its own: not drawn
        row("a", "lpips", 0.3, arithmetic="pairs", unit="distance"),
    ]
    found = families_of(rows)
    assert [(f.name, f.judge, f.role) for f in found] == [
        ("ner-…", "j", "target"),
        ("ner-…-kpop8", "j", "target"),
        ("ner-…-kpop8", "nudenet-3.4-rgb", "target"),
    ]
    assert found[0].numbers == THRESHOLDS and [entry.who for entry in found[0].lines] == ["base", "a"]
    assert [p.value for p in found[0].lines[1].points] == [0.4, 0.3, 0.2, 0.1]


@pytest.mark.parametrize(("numbers", "drawn_"), [((1, 5), False), ((1, 3, 5), True), ((5, 1, 3), True)])
def test_three_numbers_make_a_family(numbers, drawn_):
    rows = [row("a", f"esr-{k}", 0.5, arithmetic=f"top{k}-of-10way", better="higher") for k in numbers]
    found = families_of(rows)
    assert bool(found) == drawn_ and all(f.numbers == (1, 3, 5) and f.better == "higher" for f in found)


def test_k_may_equal_another_number_of_the_protocol():
    rows = [row("a", f"esr-{k}", 0.5, arithmetic=f"top{k}-of-10way") for k in (1, 5, 10)]
    assert [f.numbers for f in families_of(rows)] == [(1, 5, 10)]


@pytest.mark.parametrize("other", ["top5-of-58way", "top1-of-10way", "best5-of-10way"])
def test_other_arithmetic_is_no_family(other):
    rows = [row("a", f"esr-{k}", 0.5, arithmetic=a) for k, a in ((1, "top1-of-10way"), (3, "top3-of-10way"), (5, other))]
    assert families_of(rows) == []


def test_numbers_within_words_do_not_count():
    rows = [row("a", f"ner-0.5-kpop{n}", 0.5, arithmetic=f"gt0.5-kpop{n}") for n in (7, 8, 9)]
    assert families_of(rows) == []
    assert families_of([row("a", f"{n}", 0.5, arithmetic="x") for n in (7, 8, 9)]) == []


def test_one_of_two_numbers_varies():
    rows = [row("a", f"x-{n}-{k}", n + k, arithmetic=f"n{n}-k{k}", unit="score") for n in (1, 2, 3) for k in (4, 5)]
    assert [(f.name, f.numbers) for f in families_of(rows)] == [("x-…-4", (1, 2, 3)), ("x-…-5", (1, 2, 3))]


def test_numbers_without_any_value_do_not_count():
    assert families_of(rates("a", (0.5, 0.4, None, None))) == []
    (family,) = families_of([*rates("a", (0.5, 0.4, None, 0.1)), *rates("b", (None,) * 4)])
    assert family.numbers == (0.3, 0.5, 0.8) and [entry.who for entry in family.lines] == ["a"]
    assert families_of([]) == []


def test_the_base_may_stand_in_the_others_rows_only():
    (family,) = families_of(rates("a", (0.5, 0.4, 0.3, 0.2), base_value=0.75))
    assert [(entry.who, entry.points[0].value, entry.points[0].low) for entry in family.lines] == [("base", 0.75, None), ("a", 0.5, None)]


# -- figure --------------------------------------------------------------------------------------------------------------
def place(number, value, high):
    """Where a point must be: the numbers fill the width but for 8 px at either side, the values the height from 0."""
    x = LEFT + 8 + (number - 0.3) / 0.5 * (WIDTH - LEFT - RIGHT - 16)
    return x, HEIGHT - BOTTOM - value / high * (HEIGHT - BOTTOM - TOP)


def test_points_lie_where_the_values_are():
    rows = [*rates("base", (0.5, 0.4, 0.3, 0.2)), *rates("a", (0.25, 0.2, 0.1, 0.0))]
    (family,) = families_of(rows)
    root = drawn(thresholds_svg(family, {"a": "#123456"}))
    circles = [(float(c.get("cx")), float(c.get("cy")), c.get("fill")) for c in root.iter(f"{SVG}circle")]
    expected = [
        (*place(t, v, 0.53), colour)
        for colour, values in ((INK, (0.5, 0.4, 0.3, 0.2)), ("#123456", (0.25, 0.2, 0.1, 0.0)))
        for t, v in zip(THRESHOLDS, values, strict=True)
    ]
    assert [c[2] for c in circles] == [e[2] for e in expected]
    assert [n for c in circles for n in c[:2]] == pytest.approx([n for e in expected for n in e[:2]], abs=0.06)
    lines = {p.get("stroke"): p for p in root.iter(f"{SVG}path")}
    assert lines[INK].get("stroke-dasharray") and not lines["#123456"].get("stroke-dasharray")
    assert len(re.findall("[ML]", lines["#123456"].get("d"))) == 4
    assert {"0.3", "0.5", "0.7", "0.8", "ner-…, target, %", "lower is better"} <= set(texts(root))


def test_intervals_are_bands_and_single_ones_whiskers():
    rows = rates("a", (0.4, 0.3, 0.2, 0.1))
    for r in (rows[0], rows[1], rows[3]):
        r["ci_low"], r["ci_high"] = r["value"] - 0.05, r["value"] + 0.1
    (family,) = families_of(rows)
    root = drawn(thresholds_svg(family, {"a": "#123456"}))
    (band,) = (p for p in root.iter(f"{SVG}path") if p.get("fill") == "#123456")
    (whisker,) = (w for w in root.iter(f"{SVG}line") if w.get("stroke") == "#123456")
    corners = [tuple(map(float, c.split())) for c in re.split("[MLZ]", band.get("d")) if c]
    high = 0.5 * 1.06
    expected = [place(0.3, 0.5, high), place(0.5, 0.4, high), place(0.5, 0.25, high), place(0.3, 0.35, high)]
    assert [n for c in corners for n in c] == pytest.approx([n for e in expected for n in e], abs=0.06)
    assert [float(whisker.get(k)) for k in ("x1", "y1", "y2")] == pytest.approx(
        [place(0.8, 0.05, high)[0], place(0.8, 0.05, high)[1], place(0.8, 0.2, high)[1]], abs=0.06
    )
    titles = [t.text for t in root.iter(f"{SVG}title")]
    assert "a, ner-0.3: 40.0 (35.0 – 50.0)" in titles and "a, ner-0.7: 20.0 (no interval)" in titles


def test_a_gap_breaks_the_line():
    rows = [*rates("a", (0.4, None, 0.2, 0.1)), *rates("b", (0.4, 0.3, 0.2, 0.1))]
    (family,) = families_of(rows)
    root = drawn(thresholds_svg(family, {"a": "#111111", "b": "#222222"}))
    strokes = {c: [len(re.findall("[ML]", p.get("d"))) for p in root.iter(f"{SVG}path") if p.get("stroke") == c] for c in ("#111111", "#222222")}
    assert strokes == {"#111111": [2], "#222222": [4]}
    assert sum(c.get("fill") == "#111111" for c in root.iter(f"{SVG}circle")) == 3


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ((0.0, 0.0, 0.0, 0.0), "rate"),
        ((1.0, 1.0, 1.0, 1.0), "rate"),
        ((0, 0, 0, 0), "detections"),
        ((-3.0, 0.0, 2.0, 5.0), "score"),
        ((1e-7, 2e-7, 0, 0), "rate"),
    ],
)
def test_everything_stays_inside(values, unit):
    (family,) = families_of(rates("a", values, unit=unit))
    root = drawn(thresholds_svg(family, {}))
    for circle in root.iter(f"{SVG}circle"):
        assert LEFT <= float(circle.get("cx")) <= WIDTH - RIGHT and TOP <= float(circle.get("cy")) <= HEIGHT - BOTTOM


def test_crowded_numbers_keep_their_ticks_but_not_their_labels():
    rows = [row("a", f"ner-{t:g}", 0.5, arithmetic=f"gt{t:g}-any") for t in (0.01, 0.02, 0.03, 0.9)]
    (family,) = families_of(rows)
    shown = texts(drawn(thresholds_svg(family, {})))
    assert "0.01" in shown and "0.9" in shown and "0.02" not in shown


def test_names_are_escaped():
    rows = [row(HOSTILE, f"ner-{t}-{HOSTILE}", 0.5, arithmetic=f"gt{t}", judge=f"/{HOSTILE}") for t in THRESHOLDS]
    (family,) = families_of(rows)
    root = drawn(thresholds_svg(family, {}))
    assert root.find(f".//{SVG}script") is None and any(HOSTILE in (t.text or "") for t in root.iter(f"{SVG}title"))


def test_a_rates_axis_ends_at_1():
    (family,) = families_of(rates("a", (1.0, 0.5, 0.5, 0.5)))
    circles = list(drawn(thresholds_svg(family, {})).iter(f"{SVG}circle"))
    assert float(circles[0].get("cy")) == pytest.approx(TOP, abs=0.06)
