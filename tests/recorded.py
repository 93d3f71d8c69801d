"""Calls ``score --records`` on texts, and reads what it writes."""

from __future__ import annotations

import csv
import itertools
import math

import pytest
import typer

from conceptbench.cli import score_records as verb
from conceptbench.core.errors import ConceptBenchError
from conceptbench.core.registry import METRICS
from conceptbench.metrics.detection import Detections
from conceptbench.metrics.faces import GCDS, NoFace

Z2 = 1.959963984540054**2


@pytest.fixture(autouse=True)
def registered():
    for name, metric in {"detections": Detections, "gcds": GCDS, "no_face": NoFace}.items():
        if name not in METRICS.names():
            METRICS.add(name, metric)


def parse(arguments):
    """The options as the verb gets them."""
    found = {}
    app = typer.Typer(add_completion=False)

    @app.command()
    def score(
        context: typer.Context,
        records: verb.Records = None,
        mapping: verb.Map = None,
        base_records: verb.BaseRecords = None,
        concept: verb.ConceptName = "",
        erased: verb.Erased = "",
        kept: verb.Kept = "",
        metric: verb.MetricNames = None,
        judge_id: verb.JudgeId = None,
        label: verb.Label = None,
        separator: verb.Separator = "",
        threshold: verb.Threshold = None,
        scale: verb.Scale = "x100",
        encoding: verb.Encoding = "utf-8",
        name: str = "elsewhere",
        images: str = "",
    ):
        found.update(context.params)

    app([str(a) for a in arguments], standalone_mode=False)
    return found


@pytest.fixture
def score(tmp_path, capsys):
    """Scores a text; gives the rows over all concepts by model, metric and role, and what was printed."""

    def call(text, *arguments, suffix="csv", base=None):
        (tmp_path / f"r.{suffix}").write_text(text)
        arguments = ["--records", tmp_path / f"r.{suffix}", *arguments]
        if base is not None:
            (tmp_path / f"b.{suffix}").write_text(base)
            arguments += ["--base-records", tmp_path / f"b.{suffix}"]
        verb.score_records({**parse(arguments), "output": tmp_path / "out"})
        with (tmp_path / "out" / "leaderboard.csv").open(newline="") as file:
            call.rows = list(csv.DictReader(file))
        with (tmp_path / "out" / "records.csv").open(newline="") as file:
            call.records = list(csv.DictReader(file))
        call.printed = capsys.readouterr()
        return {(r["eraser"], r["metric"], r["role"]): r for r in call.rows if r["concept"] == "*"}

    return call


def refusal(score, *arguments, **options):
    with pytest.raises(ConceptBenchError) as error:
        score(*arguments, **options)
    assert error.value.exit_code == 2
    return str(error.value)


def maps(*entries):
    return list(itertools.chain.from_iterable(("--map", e) for e in entries))


def number(cell):
    return None if cell == "" else float(cell)


def wilson(k, n):
    centre, half = (k + Z2 / 2) / (n + Z2), math.sqrt(Z2) / (n + Z2) * math.sqrt(k * (n - k) / n + Z2 / 4)
    return pytest.approx((max(0.0, centre - half), min(1.0, centre + half)), abs=2e-6)
