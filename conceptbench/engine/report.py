"""``report.html``: one self-contained page made from a run's ``results.json`` and ``records.csv`` and the images in the store.

The page has no script and asks for nothing from elsewhere (its content security policy forbids both); the same input gives
the same bytes. What is drawn is in :mod:`conceptbench.engine.figures`; here it is put together.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from conceptbench.core.errors import UserInputError
from conceptbench.core.files import write_text
from conceptbench.core.manifests import load_concepts
from conceptbench.core.schemas import Suite, Task
from conceptbench.engine.figures import bars, curves, extremes, findings, matrix, scatter, several, svg, tables, thresholds
from conceptbench.engine.figures.galleries import Keys, galleries
from conceptbench.engine.figures.numbers import show_number, show_signed
from conceptbench.engine.figures.tiles import picture
from conceptbench.engine.groups import concepts_by_role, row_roles
from conceptbench.engine.images import BASE, FLOOR, Images
from conceptbench.engine.records import Record, read_records
from conceptbench.engine.store import Store
from conceptbench.models.info import BaseInfo

__all__ = ["report_from_results", "row_names", "show_number"]

Row = Mapping[str, Any]


def row_names(pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """What each (eraser, preset) is called: the eraser's name, with its preset where several of one eraser are shown."""
    distinct = list(dict.fromkeys(pairs))
    several = {e for e, _ in distinct if sum(other == e for other, _ in distinct) > 1}
    return {(e, p): f"{e}:{p}" if e in several else e for e, p in distinct}


def _pair(spec: str) -> tuple[str, str]:
    eraser, _, preset = spec.partition(":")
    return eraser, preset


@dataclass(frozen=True)
class _Run:
    """A finished run as the page needs it.

    Attributes:
        document: ``results.json``.
        rows: all result rows, each with ``who``, the name of its model.
        names: (eraser, preset) -> name.
        order: names, the base first, then the line-up.
        palette: eraser's name -> colour.
        records: of every image; None where the run wrote none.
        trouble: why the records are not readable, else empty.
    """

    document: Mapping[str, Any]
    suite: Suite
    rows: list[Row]
    names: Mapping[tuple[str, str], str]
    order: tuple[str, ...]
    palette: Mapping[str, str]
    records: list[Record] | None
    trouble: str

    @property
    def canonical(self) -> Mapping[str, Any]:
        """The part of the results that a rerun gives again."""
        part: Mapping[str, Any] = self.document["canonical"]
        return part

    @property
    def erasers(self) -> tuple[str, ...]:
        """Names of the erasers: neither the base nor the base under another sampler."""
        return tuple(who for who in self.order[1:] if not who.startswith(FLOOR))

    def legend(self, shown: Collection[str]) -> list[tuple[str, str]]:
        """(name, colour) of the models that a figure shows, in the order of the line-up."""
        return [(who, self.palette.get(who, svg.BASE_COLOUR)) for who in self.order if who in shown]


def _records(folder: Path) -> tuple[list[Record] | None, str]:
    if not (folder / "records.csv").is_file():
        return None, ""
    try:
        return list(read_records(folder)), ""
    except UserInputError as error:
        return None, error.message
    except ValueError as error:  # bytes that are no text
        return None, f"records.csv is damaged: {error}"


def _read(folder: Path) -> _Run:
    path = folder / "results.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        canonical = document["canonical"]
        suite = Suite.model_validate(canonical["suite"])
        reasons = {(f["eraser"], f["task"]): f.get("reason", "") for f in document.get("failures", [])}
        all_rows = [*canonical["rows"], *document.get("timed", [])]
        all_rows = [{**r, "reason": r["reason"] or reasons.get((f"{r['eraser']}:{r['preset']}", r["task"]), "")} for r in all_rows]
        names = row_names([(r["eraser"], r["preset"]) for r in all_rows])
        specs = [_pair(e["spec"]) for e in canonical["erasers"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserInputError(f"no readable results in {folder}: {error}", "give the folder that `conceptbench run --output` wrote") from error
    rows: list[Row] = [{**r, "who": names[r["eraser"], r["preset"]]} for r in all_rows]
    line_up = [names[s] for s in specs if s in names]
    erasers = tuple(w for w in dict.fromkeys([*line_up, *(r["who"] for r in rows)]) if w != BASE)
    return _Run(document, suite, rows, names, (BASE, *erasers), svg.colours(erasers), *_records(folder))


MODES = {"together": "together", "in-turn": "one after another, each from the model without those before", "apart": "each alone, and then all changes summed"}


def task_story(task: Task) -> list[str]:
    """What is done with the concepts of a task, in sentences: how they are erased, what is kept, brought back and never told of."""
    found = [f"Erased {MODES[task.mode]}"] if len(task.targets) > 1 else []
    if task.restored:
        others = {"": "by leaving out its part of the erasure or by its own hidden artefact", "random": "by an artefact of the same norm drawn at random"}
        way = others.get(task.restore_with, f"by the hidden artefact of {task.restore_with}")
        found.append(f"Brought back before anything is measured: {', '.join(task.restored)}, {way}")
    found += [f"Kept: {', '.join(task.retained)}"] if task.retained else []
    found += [f"Unseen, because no eraser is told of it: {', '.join(task.unseen)}"] if task.unseen else []
    return found


def _figures(run: _Run, task: Task, rows: Sequence[Row]) -> dict[str, Any]:
    headline = run.suite.headline
    points = scatter.points_of(rows, headline.kept, headline.erased, run.order)
    axes = scatter.axis_of(rows, headline.kept, "retained"), scatter.axis_of(rows, headline.erased, "target")
    panels = curves.panels_of(_curves(run, task))
    shown = [(role, headline.erased if role == "target" else headline.kept, names) for role, names in concepts_by_role(task).items()]
    everything = [r for r in rows if r["concept"] == "*"]
    return {
        "families": [thresholds.thresholds_svg(f, run.palette) for f in thresholds.families_of(everything)],
        "scatter": scatter.scatter_svg(points, *axes, run.palette),
        "bars": {role: bars.bars_svg(bars.groups_of(rows, metric, role, run.order, names), metric, run.palette) for role, metric, names in shown},
        "curves": [curves.panel_svg(p, run.palette) for p in panels],
        "trained": run.legend({c.label for p in panels for c in p.curves}),
    }


def _curves(run: _Run, task: Task) -> dict[str, Sequence[Mapping[str, Any]]]:
    all_curves = run.document.get("curves", {})
    specs = [e["spec"] for e in run.canonical["erasers"]]
    found = {run.names.get(_pair(s), s): all_curves.get(f"{s} [{task.id}]") for s in specs}
    return {who: points for who, points in found.items() if points}


def _extremes(run: _Run, task: Task, rows: Sequence[Row], store: Store) -> list[dict[str, Any]]:
    records = [r for r in run.records or () if r.task == task.id]
    concepts = load_concepts(run.suite.concepts)
    hidden = {name for name, c in concepts.items() if c.kind == "explicit"}

    def tile(shown: extremes.Shown) -> dict[str, Any]:
        record = shown.record
        return {"record": record, "value": shown.value, "explicit": record.concept in hidden, "picture": picture(store, [record.image])}

    found = extremes.extremes_of(records, rows, run.names, run.order)
    return [{"of": e, "series": [{"who": s.who, "label": s.label, "tiles": [tile(t) for t in s.shown]} for s in e.series]} for e in found]


def _model_table(run: _Run, task: Task, rows: Sequence[Row]) -> tables.Table:
    specs = {e["spec"]: run.names[_pair(e["spec"])] for e in run.canonical["erasers"] if _pair(e["spec"]) in run.names}
    costs = tables.cost_rows(run.document.get("cost", []), rows, task.id, specs)
    return tables.table([*(r for r in rows if r["role"] == "model"), *costs], run.order, run.suite)


def _task(run: _Run, task: Task, keys: Keys, store: Store) -> dict[str, Any]:
    rows = tables.in_suite_order(run.rows, run.suite, task, run.order)
    of_images = [r for r in rows if r["role"] != "model"]
    hashes = {(run.names.get(_pair(e["spec"]), ""), e["task"]): e["weights_sha256"] for e in run.canonical["erasures"]}
    models = [(BASE, BASE), *((who, hashes[who, task.id]) for who in run.order if (who, task.id) in hashes)]
    specs = list(Images(run.suite, task, run.canonical["limited"]))
    found = findings.found_in(run.document.get("findings", []), task, models, store)
    prompts: dict[str, list[str]] = {}
    for spec in specs:
        prompts.setdefault(spec.concept, []).append(spec.condition.text)
    return {
        "id": task.id,
        "targets": task.targets,
        "story": task_story(task),
        **_figures(run, task, of_images),
        "table": tables.table([r for r in of_images if r["concept"] == "*"], run.order, run.suite),
        "model": _model_table(run, task, rows),
        "heat": findings.heat_panels(found, load_concepts(run.suite.concepts), prompts),
        "drawn": findings.picture_panels(found, load_concepts(run.suite.concepts)),
        "probed": findings.curve_panels(found, {**run.palette, BASE: svg.BASE_COLOUR}),
        "galleries": galleries(specs, load_concepts(run.suite.concepts), models, keys, store, row_roles(task)),
        "extremes": _extremes(run, task, of_images, store),
        "rows": [r for r in of_images if r["concept"] != "*"],
    }


def _base_info(base: Mapping[str, Any]) -> BaseInfo:
    """What the keys of images depend on; results from before there was a precision are of float32."""
    return BaseInfo(base["id"], base["family"], base["revision"], base["components"], precision=base.get("precision", "fp32"))


def _environment() -> Environment:
    environment = Environment(loader=PackageLoader("conceptbench.engine"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = show_number
    environment.filters["signed"] = show_signed
    return environment


def report_from_results(folder: Path, store: Store | None = None) -> Path:
    """Writes ``report.html`` into a run's folder.

    Args:
        folder: it holds ``results.json`` and, for the images behind the numbers, ``records.csv``.
        store: with the run's images; None for the one that the run used. Missing images are shown as grey tiles.

    Returns:
        The page's path.

    Raises:
        UserInputError: there are no readable results.
    """
    run = _read(folder)
    store = store or Store(Path(run.document["store"]))
    keys = Keys(_base_info(run.canonical["base"]), run.names, run.records or ())
    over_splits = [r for r in run.rows if r["task"] == "*"]
    html = (
        _environment()
        .get_template("report.html.j2")
        .render(
            suite=run.suite,
            tasks=[_task(run, task, keys, store) for task in run.suite.tasks],
            matrices=matrix.matrices(run.rows, run.suite, run.erasers),
            several=[several.panel_svg(p, run.palette) for p in several.panels_of(run.rows, run.suite, run.erasers)],
            splits=tables.table(over_splits, run.order, run.suite) if over_splits else None,
            legend=run.legend(run.order),
            document=run.document,
            canonical=run.canonical,
            protocols=list(dict.fromkeys(r["protocol"] for r in run.rows)),
            trouble=run.trouble,
            recorded=run.records is not None,
            scale=matrix.shade(0)[:1] + matrix.shade(1)[:1],
        )
    )
    write_text(folder / "report.html", html)
    return folder / "report.html"
