from __future__ import annotations

import re

import pytest

from conceptbench.core.schemas import Suite
from conceptbench.engine.figures.several import panel_svg, panels_of

MODES = {"one": (1, "together"), "two": (2, "together"), "turn": (2, "in-turn"), "other": (2, "in-turn")}


def suite(modes=MODES, restored=()):
    tasks = [
        {"id": i, "targets": list("abcdefgh"[:n]), "retained": ["z"], "mode": mode, "prompts": {"set": "p"}, "restored": restored if n > 1 else ()}
        for i, (n, mode) in modes.items()
    ]
    rest = {"sampler": {}, "seed": 0, "concepts": "c", "metrics": [{"metric": "esr"}], "headline": {"erased": "esr-1", "kept": "psr-1"}}
    return Suite.model_validate({"name": "s", "version": "1.0", "title": "s", "base": "b", "tasks": tasks, **rest})


def row(task, value, who="uce", metric="esr-1", role="target", concept="*", low=None, high=None):
    return {"task": task, "who": who, "metric": metric, "role": role, "concept": concept, "value": value, "ci_low": low, "ci_high": high, "unit": "rate"}


ROWS = [row("one", 0.9, low=0.8, high=1.0), row("two", 0.7), row("turn", 0.6), row("other", 0.2), row("two", 0.1, concept="a"), row("one", 1.0, "base")]


def test_points_by_number_and_mode():
    (panel,) = panels_of(ROWS, suite(), ["uce"])
    assert panel.role == "target"
    assert [(p.mode, p.targets, p.value) for p in panel.points] == [
        ("", 1, 0.9),
        ("in-turn", 2, 0.6),
        ("in-turn", 2, 0.2),
        ("together", 2, 0.7),
    ]


def test_the_line_goes_through_the_mean_of_the_orders():
    (panel,) = panels_of(ROWS, suite(), ["uce"])
    drawn = str(panel_svg(panel, {"uce": "#123456"}))
    lines = [
        tuple(float(v) for v in m) for m in re.findall(r'<line x1="[\d.]+" y1="([\d.]+)" x2="[\d.]+" y2="([\d.]+)" stroke="#123456" stroke-width="1.8"', drawn)
    ]
    dots = {t: float(y) for t, y in re.findall(r'<title>([^<]+)</title>(?:<line[^>]*>)?<circle [^>]*cy="([\d.]+)"', drawn)}
    by_task = {label.split(", ")[1].split(" ")[0]: y for label, y in dots.items()}
    ends = sorted([by_task["two"], (by_task["turn"] + by_task["other"]) / 2])
    assert sorted(after for _, after in lines) == pytest.approx(ends, abs=0.11)
    assert drawn.count("uce, one (one target): 90.0 [80.0, 100.0]") == 1 and 'stroke-dasharray="6 4"' in drawn


def test_every_point_is_drawn_also_where_no_line_leads():
    modes = {"two": (2, "together"), "turn": (2, "in-turn"), "apart": (2, "apart")}
    (panel,) = panels_of([row(t, v, who=w) for w in ("uce", "esd") for t, v in (("two", 0.7), ("turn", 0.6), ("apart", 0.5))], suite(modes), ["uce"])
    drawn = str(panel_svg(panel, {"uce": "#123456"}))
    assert re.findall(r"<title>uce, (\w+) \(([\w-]+)\)", drawn) == [("apart", "apart"), ("turn", "in-turn"), ("two", "together")]
    assert 'stroke-width="1.8"' not in drawn and drawn.count("<rect x") == 1 and "esd" not in drawn
    one = suite({"one": (1, "together"), "two": (2, "apart")})  # a line from one target to two, of the only mode
    (panel,) = panels_of([row("one", 0.9), row("two", 0.7)], one, ["uce"])
    drawn = str(panel_svg(panel, {"uce": "#123456"}))
    assert drawn.count('stroke-width="1.8"') == 1 == drawn.count('stroke-dasharray="1.5 3.5"') and drawn.count("<title>uce, one") == 1


def test_nothing_to_draw():
    assert panels_of(ROWS, suite({"one": (1, "together")}), ["uce"]) == [] == panels_of(ROWS, suite({"one": (1, "together"), "turn": (1, "in-turn")}), ["uce"])
    assert panels_of(ROWS, suite(restored=["a"]), ["uce"]) == []
    assert panels_of([row("one", None), row("two", None)], suite(), ["uce"]) == []


def test_names_are_escaped():
    (panel,) = panels_of([row("one", 0.5, "<b>"), row("two", 0.5, "<b>")], suite(), ["<b>"])
    assert "<b>" not in str(panel_svg(panel, {})).replace("<title>", "")
