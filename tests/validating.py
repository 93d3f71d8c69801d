"""A suite without a fault, ways to plant some, and what `conceptbench validate` finds, for tests of it."""

from __future__ import annotations

import yaml
from world import write_suite

from conceptbench.core.errors import unknown_name
from conceptbench.core.registry import JUDGES
from conceptbench.core.validation import Surroundings, validate

NAMES = ("ab", "ef", "gh")


def check_eraser(spec, base, tasks=()):
    if spec not in ("uce", "negative-prompt"):
        raise unknown_name("eraser", spec, ["uce", "negative-prompt"])
    return ""


AROUND = Surroundings(lambda name: JUDGES.load(name)().card, check_eraser)


def faultless(folder):
    """A suite of 20 prompts a concept without a fault."""
    path = write_suite(folder, {n: [f"{n} number {i}" for i in range(20)] for n in NAMES}, base="some/model")
    assert validate(str(path), AROUND).problems == []
    return path


def change(path, **changes):
    value = yaml.safe_load(path.read_text())
    value.update(changes)
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return path


def line_of(path, start, nth=0):
    return [i for i, text in enumerate(path.read_text().splitlines(), 1) if text.strip().startswith(start)][nth]


def found(path, around=AROUND):
    return [(p.path.name, p.line, p.message, p.warning) for p in validate(str(path), around).problems]


def only(path, around=AROUND):
    problems = found(path, around)
    assert len(problems) == 1, problems
    return problems[0]


def added(path, *metrics):
    return change(path, metrics=[*yaml.safe_load(path.read_text())["metrics"], *metrics])
