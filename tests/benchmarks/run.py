"""``python tests/benchmarks/run.py [NAME...]``: one table of ratios, ours against a baseline, measured side by side in this
run.

Benchmarks: ``sampling``, ``matmul``, ``overhead``, ``judging``, ``esd``, ``erasers``, ``plan``, ``leaderboard``, ``site``; all of them without a name. Each file's docstring
says what is compared and how, and :mod:`benchmarks.measuring` how a ratio is measured. The machine should have nothing else
to do. The exit code is 1 if a requirement is missed or a benchmark failed; the table is printed all the same.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # `benchmarks` is the package, and its files shadow nobody's names

import argparse
import importlib
import platform
import traceback
from collections.abc import Sequence
from dataclasses import asdict

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import Row, Settings
from conceptbench.core.files import pretty_json, write_text
from conceptbench.engine.provenance import environment

NAMES = ("sampling", "matmul", "overhead", "judging", "esd", "erasers", "plan", "leaderboard", "site")
SCALES = {
    "x": (1.0, "{:.2f} x"),
    "%": (100.0, "{:.1f} %"),
    "s": (1.0, "{:.1f} s"),
    "ms": (1.0, "{:.2f} ms"),
    "MB": (1.0, "{:.2f} MB"),
    "GiB": (1.0, "{:.2f} GiB"),
    "levels": (1.0, "{:.0f}"),
    "points": (100.0, "{:+.1f}"),
}


def settings_of(arguments: Sequence[str]) -> tuple[list[str], Settings, Path | None]:
    """Names, settings and the JSON file from the command line."""
    usual = Settings()
    parser = argparse.ArgumentParser(prog="tests/benchmarks/run.py", description="Ratios of speed, measured side by side.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)}; all without a name")
    parser.add_argument("--rounds", type=int, help="how often both sides are timed; each benchmark has its own number")
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    parser.add_argument("--base", default=usual.base, help="a registered base or a diffusers folder")
    parser.add_argument("--suite", default=usual.suite, help="a suite's name or file")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch, on both sides")
    parser.add_argument("--images", type=int, default=usual.images, help="a round of sampling")
    parser.add_argument("--limit", type=int, help="prompts a concept in overhead (6) and in esd's quality check (all)")
    parser.add_argument("--steps", type=int, help="training steps in overhead and esd (the preset's), and in erasers (20)")
    parser.add_argument("--task", default=usual.task, help="of the suite, for esd and erasers")
    parser.add_argument("--prompts", type=int, default=usual.prompts, help="of plan, ten images each; rows of leaderboard")
    given = vars(parser.parse_args(arguments))
    names, file = given.pop("names") or list(NAMES), given.pop("json")
    for name in names:
        if name not in NAMES:
            parser.error(f"no benchmark {name!r}; there are {', '.join(NAMES)}")
    for option in ("rounds", "threads", "images", "limit", "steps", "prompts"):
        if given[option] is not None and given[option] < 1:
            parser.error(f"--{option} must be at least 1, not {given[option]}")
    return names, Settings(**given), file


def carry_out(names: Sequence[str], settings: Settings) -> tuple[list[Row], list[str]]:
    """The rows of the named benchmarks, and the names of those that failed; one that fails does not keep the others."""
    rows: list[Row] = []
    failed = []
    for name in names:
        sys.stderr.write(f"{name} ...\n")
        try:
            rows += importlib.import_module(f"benchmarks.{name}").run(settings)
        except Exception:
            traceback.print_exc()
            failed.append(name)
    return rows, failed


def machine(settings: Settings) -> str:
    """The hardware and versions of this run."""
    file = Path("/proc/cpuinfo")
    models = [line.partition(":")[2].strip() for line in file.read_text().splitlines() if line.startswith("model name")] if file.exists() else []
    return f"{models[0] if models else platform.processor() or platform.machine()}, {os.cpu_count()} logical CPUs, {settings.threads} torch threads; {environment()}"


def shown(value: float, unit: str) -> str:
    """A value with its unit."""
    scale, text = SCALES[unit]
    return text.format(scale * value)


def table_of(rows: Sequence[Row], title: str) -> Table:
    """The table for people."""
    table = Table(title=title, title_justify="left")
    for head in ("benchmark", "ours", "baseline", "ratio or share", "spread", "required", "met"):
        table.add_column(head, no_wrap=True)
    table.add_column("how measured", overflow="fold", min_width=50)
    for row in rows:
        spread = "" if row.spread is None else f"{shown(row.spread[0], row.unit)} ... {shown(row.spread[1], row.unit)}"
        required = "" if row.bound is None else f"{row.bound[0]} {shown(row.bound[1], row.unit)}"
        met = {True: "yes", False: "NO", None: ""}[row.met]
        table.add_row(row.name, row.ours, row.baseline, shown(row.value, row.unit), spread, required, met, row.how)
    return table


def main(arguments: Sequence[str]) -> int:
    """Measures, prints the table, writes the JSON file. Returns the exit code."""
    names, settings, file = settings_of(arguments)
    rows, failed = carry_out(names, settings)
    title = machine(settings)
    console = Console(width=None if sys.stdout.isatty() else 240)
    console.print(table_of(rows, title))
    if failed:
        console.print(f"failed: {', '.join(failed)}")
    if file is not None:
        write_text(file, pretty_json({"machine": title, "settings": asdict(settings), "rows": [{**asdict(r), "met": r.met} for r in rows], "failed": failed}))
    return int(bool(failed) or any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
