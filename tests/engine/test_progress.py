"""What is said of a run's stages, also where one begins inside another."""

from __future__ import annotations

import re

import pytest

from conceptbench.cli.bars import Bars
from conceptbench.engine.progress import Lines


def nested(reporter):
    reporter.begin("erase", 4)
    reporter.advance(1)
    reporter.begin("draw images", 3)
    reporter.advance(3)
    reporter.end()
    reporter.advance(2)
    reporter.end()


def test_a_stage_inside_another_has_a_count_of_its_own(capsys):
    nested(Lines())
    said = re.sub(r" in [\d.]+ s.*", "", capsys.readouterr().err)
    assert said.splitlines() == ["draw images: 3/3", "erase: 3/4"]


def test_what_no_stage_waits_for_is_not_counted(capsys):
    reporter = Lines()
    reporter.advance(5)
    reporter.begin("draw", 1)
    reporter.end()
    assert capsys.readouterr().err.startswith("draw: 0/1")


def test_bars_too(capsys):
    nested(Bars())
    said = capsys.readouterr().err
    assert "3/3" in said and "3/4" in said and "6/" not in said


@pytest.mark.parametrize("kind", [Lines, Bars])
def test_the_next_stage_starts_anew(kind, capsys):
    reporter = kind()
    nested(reporter)
    capsys.readouterr()
    nested(reporter)
    assert "6/" not in capsys.readouterr().err


@pytest.mark.parametrize("kind", [Lines, Bars])
def test_after_a_failure_nothing_stays_open(kind, capsys):
    reporter = kind()
    reporter.begin("erase", 4)
    reporter.begin("draw images", 3)
    reporter.advance(2)
    reporter.abandon()
    assert "2/3" in capsys.readouterr().err
    nested(reporter)
    said = capsys.readouterr().err
    assert "3/3" in said and "3/4" in said and "2/3" not in said
