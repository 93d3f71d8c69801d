"""A table as Markdown, LaTeX, CSV or HTML. Every text is escaped for where it goes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping

from jinja2 import Environment, PackageLoader

from conceptbench.core.results import safe_cell
from conceptbench.leaderboard.cells import FilledTable
from conceptbench.leaderboard.grids import Grid, Text, header_spans, make_grid

COLUMNS = (
    *("table", "tier", "row", "column", "published", "published_spread", "published_unit", "value", "ci_low", "ci_high", "spread", "outside"),
    *("metric", "protocol", "suite", "suite_version", "task", "role", "concept", "base", "eraser", "preset", "n_scored", "n_planned", "status", "reason"),
    *("train_seed", "suite_sha256", "base_sha256", "erasure_sha256", "judge_sha256", "plugin_sha256", "environment", "hardware"),
)
"""Columns of the CSV: one line a cell, scaled as the table shows it."""
SUPERSCRIPTS = str.maketrans("0123456789,", "⁰¹²³⁴⁵⁶⁷⁸⁹˒")


def marks(notes: tuple[int, ...]) -> str:
    """Numbers of footnotes, raised."""
    return ",".join(map(str, notes)).translate(SUPERSCRIPTS)


# -- Markdown --------------------------------------------------------------------------------------------------------
def _md(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", text).replace("\n", " ")


def to_markdown(table: FilledTable) -> str:
    """GitHub's tables: the levels of a header are joined, a cell has published and measured one below the other."""
    grid = make_grid(table)
    heads = [_md(" · ".join(x for x in c.labels if x)) + marks(c.notes) for c in grid.columns]
    stub = len(grid.rows[0].labels) if grid.rows else 1
    lines = [f"**{_md(grid.title)}**", "", f"| {' | '.join([''] * stub + heads)} |", f"| {' | '.join(['---'] * stub + ['---:'] * len(heads))} |"]
    for row in grid.rows:
        labels = [_md(x) for x in row.labels]
        labels[-1] += marks(row.notes)
        lines.append(f"| {' | '.join([*labels, *(_md_cell(c) for c in row.cells)])} |")
    lines += ["", *(f"{marks((i,))} {_md(note)}  " for i, note in enumerate(grid.footnotes, start=1)), "", *(f"{_md(fact)}  " for fact in grid.facts)]
    return "\n".join(lines) + "\n"


def _md_cell(cell: Text) -> str:
    published = _md(cell.published) + marks(cell.notes)
    measured = f"**{_md(cell.measured)}** {_md(cell.interval)}".strip() if cell.measured else ""
    return "<br>".join(x for x in (published, measured) if x)


# -- LaTeX -----------------------------------------------------------------------------------------------------------
_TEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{"±": r"$\pm$", "–": "--", "−": "$-$", "†": r"$\dagger$", "Δ": r"$\Delta$", "θ": r"$\theta$", "λ": r"$\lambda$", "τ": r"$\tau$", "Σ": r"$\Sigma$"},
    **{"φ": r"$\phi$", "‖": r"$\Vert$", "·": r"$\cdot$", "→": r"$\to$", "×": r"$\times$", "≤": r"$\le$", "‡": r"$\ddagger$"},
}


def _tex(text: str) -> str:
    shown = "".join(_TEX.get(c, c) for c in text.replace("\n", " "))
    return f"{{}}{shown}" if text[:1] in ("[", "*") else shown  # after a line break or an item it would be an argument


def _tex_notes(notes: tuple[int, ...]) -> str:
    return f"$^{{{','.join(map(str, notes))}}}$" if notes else ""


def to_latex(table: FilledTable) -> str:
    """A booktabs table (packages booktabs and threeparttable): published in the first line of a row, measured in the second."""
    grid = make_grid(table)
    stub = len(grid.rows[0].labels) if grid.rows else 1
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_tex(grid.title)}}}", r"\begin{threeparttable}"]
    lines += [rf"\begin{{tabular}}{{{'l' * stub}{'r' * len(grid.columns)}}}", r"\toprule", *_tex_header(grid, stub), r"\midrule"]
    for row in grid.rows:
        labels = [_tex(x) for x in row.labels]
        labels[-1] += _tex_notes(row.notes)
        lines.append(" & ".join([*labels, *(_tex(c.published) + _tex_notes(c.notes) for c in row.cells)]) + r" \\")
        if any(c.measured for c in row.cells):
            measured = [(rf"\textbf{{{_tex(c.measured)}}} {{\scriptsize {_tex(c.interval)}}}" if c.measured else "") for c in row.cells]
            lines.append(" & ".join([*[""] * stub, *measured]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\begin{tablenotes}\footnotesize"]
    lines += [rf"\item[{i}] {_tex(note)}" for i, note in enumerate(grid.footnotes, start=1)] + [rf"\item {_tex(fact)}" for fact in grid.facts]
    return "\n".join([*lines, r"\end{tablenotes}", r"\end{threeparttable}", r"\end{table}"]) + "\n"


def _tex_header(grid: Grid, stub: int) -> list[str]:
    """One line a level, with a rule below what spans several columns."""
    lines = []
    for level in header_spans(grid):
        cells, rules, at = [], [], stub + 1
        for text, span, notes in level:
            cells.append(_tex(text) + _tex_notes(notes) if span == 1 else rf"\multicolumn{{{span}}}{{c}}{{{_tex(text)}}}")
            rules += [rf"\cmidrule(lr){{{at}-{at + span - 1}}}"] if span > 1 else []
            at += span
        lines += [" & ".join([*[""] * stub, *cells]) + r" \\", *(["".join(rules)] if rules else [])]
    return lines


# -- CSV and HTML ----------------------------------------------------------------------------------------------------
def to_csv(table: FilledTable) -> str:
    """Every cell with all that is known of it; what a spreadsheet would run is neutralised."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for cell in table.cells:
        row, m, p = (None if cell.measured is None else cell.measured.row), cell.measured, cell.published
        values = {} if row is None else {k: getattr(row, k) for k in COLUMNS if k in type(row).model_fields}
        values |= {
            "table": table.spec.id,
            "tier": table.tier,
            "row": cell.row,
            "column": cell.column,
            "outside": cell.outside if table.tier == "paper" else None,
        }
        values |= {} if p is None else {"published": p.value, "published_spread": p.spread, "published_unit": p.unit}
        values |= {"value": None, "ci_low": None, "ci_high": None, "spread": None}
        values |= {} if cell.defined is None else {"value": cell.defined[0], "reason": "by definition: the unmodified model beside itself"}
        values |= {} if m is None else {"value": m.value, "ci_low": m.low, "ci_high": m.high, "spread": m.spread}
        writer.writerow([safe_cell(values.get(c)) for c in COLUMNS])
    return out.getvalue()


def to_html(table: FilledTable) -> str:
    """One page without scripts or anything from outside."""
    environment = Environment(loader=PackageLoader("conceptbench.leaderboard"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    grid = make_grid(table)
    return environment.get_template("table.html.j2").render(grid=grid, headers=header_spans(grid), stub=len(grid.rows[0].labels) if grid.rows else 1)


FORMATS: Mapping[str, tuple[str, Callable[[FilledTable], str]]] = {
    "markdown": ("table.md", to_markdown),
    "latex": ("table.tex", to_latex),
    "csv": ("table.csv", to_csv),
    "html": ("table.html", to_html),
}
"""Name of a format -> the file that `table run` writes, and what makes it."""
