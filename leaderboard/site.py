"""``leaderboard site``: one static page made of leaderboard rows. It asks for nothing from elsewhere and works from a disk.

The rows are in the page once, as JSON; its script builds what is seen of them with text nodes only. The content security policy
allows exactly this style and this script, by their hashes, and images that are in the page; it forbids everything else.
The same input gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from conceptbench import __version__
from conceptbench.core.files import sha256_bytes, write_text
from conceptbench.core.manifests import load_suite, names_in
from conceptbench.core.results import BASE, to_csv
from conceptbench.core.schemas import Suite
from conceptbench.engine.figures.svg import BASE_COLOUR, colours
from conceptbench.leaderboard.site_citing import Citation, bibtex
from conceptbench.leaderboard.site_data import Board, board_of, major_of, sources_of
from conceptbench.leaderboard.site_packing import packed_rows, script_json
from conceptbench.leaderboard.site_pictures import Pictures, Run, read_run, sample_pairs
from conceptbench.leaderboard.site_tabs import Tab, headline_column, unique

SCRIPTS = ("data", "numbers", "view", "bars", "table", "scatter", "details", "drawer", "copying", "controls", "main")
"""Files of the page's script in the order in which they are put together."""


@dataclass(frozen=True)
class Made:
    """What was written.

    Attributes:
        rows: on the page.
        repeated: rows that were given more than once.
        split: names of files whose lines are shown apart.
        strips: pictures in the page, of one model and concept each.
        left_out: pictures for which there was no room.
    """

    path: Path
    rows: int
    tabs: int
    size: int
    repeated: int
    split: tuple[str, ...]
    strips: int
    left_out: int


def write_site(boards: Sequence[Path], output: Path, images: Sequence[Path] = (), citation: Citation | None = None) -> Made:
    """Makes the page.

    Args:
        boards: leaderboard CSVs, packed or not; at least one.
        output: the page's path.
        images: folders of runs, whose images are shown beside the rows of the same weights.
        citation: title and what else the BibTeX entry says.

    Raises:
        UserInputError: a file or a folder is not usable, or a file contradicts itself.
    """
    board = board_of(sources_of(boards))
    runs = [read_run(folder) for folder in images]
    pictures = sample_pairs(runs, board.rows)
    html = page_of(board, runs, pictures, citation or Citation())
    write_text(output, html)
    return Made(output, len(board.rows), len(board.tabs), len(html.encode()), board.repeated, board.split, len(pictures.strips), pictures.left_out)


# -- the page --------------------------------------------------------------------------------------------------------------
def page_of(board: Board, runs: Sequence[Run], pictures: Pictures, citation: Citation) -> str:
    """The page as HTML."""
    suites = {(r.suite.name, major_of(r.suite.version)): r.suite for r in runs}
    digest = sha256_bytes(to_csv(board.rows).encode())
    data = {
        "format": "conceptbench-site-1",
        "sha256": digest,
        "tabs": [_tab_data(tab, suites.get((tab.suite, tab.major)) or shipped_suite(tab.suite, tab.major)) for tab in board.tabs],
        "rows": packed_rows(board.rows),
        "strips": pictures.strips,
        "shown": pictures.shown,
        "split": board.split,
        "bibtex": bibtex(citation, digest, board),
    }
    style, script = _style(), _script()
    environment = Environment(
        loader=PackageLoader("conceptbench.leaderboard"), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    return environment.get_template("site.html.j2").render(
        title=citation.title,
        summary=summary_of(board),
        version=__version__,
        digest=digest,
        policy=policy_of(style, script),
        style=style,
        script=script,
        data=script_json(data),
    )


def policy_of(style: str, script: str) -> str:
    """The content security policy: this style, this script, images in the page, and nothing else; no text is ever parsed as HTML by the script."""
    sources = {
        "default-src": "'none'",
        "script-src": f"'sha256-{_digest(script)}'",
        "style-src": f"'sha256-{_digest(style)}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in sources.items())


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _template(name: str) -> str:
    return (files("conceptbench.leaderboard") / "templates" / name).read_text(encoding="utf-8")


@cache
def _style() -> Markup:
    return Markup("\n" + _template("site.css"))  # noqa: S704 - ours


@cache
def _script() -> Markup:
    """One function around all files, so that the page has no global names but its own."""
    parts = "\n".join(_template(f"site_{name}.js") for name in SCRIPTS)
    return Markup(f'\n"use strict";\n(() => {{\n{parts}}})();\n')  # noqa: S704 - ours


def summary_of(board: Board) -> str:
    """What is on the page, in a line."""

    def counted(n: int, what: str) -> str:
        return f"{n:,} {what}{'' if n == 1 else 's'}"

    methods = {(line.eraser, line.preset) for tab in board.tabs for line in tab.lines if line.kind != BASE}
    bases = unique(row.base for row in board.rows)
    numbers = {"result": len(board.rows), "method": len(methods), "suite": len(board.tabs), "base model": len(bases)}
    return ", ".join(counted(n, what) for what, n in numbers.items())


# -- what the script gets ----------------------------------------------------------------------------------------------------
def shipped_suite(name: str, major: str) -> Suite | None:
    """The suite of that name, if it is shipped and of that major version. Never a file: the name is from a CSV."""
    if name not in names_in("suites"):
        return None
    suite = load_suite(name)
    return suite if major_of(suite.version) == major else None


def _tab_data(tab: Tab, suite: Suite | None) -> dict[str, Any]:
    kinds = unique(line.kind for line in tab.lines if line.kind != BASE)
    palette = colours(kinds)
    headline = {"erased": headline_column(tab, "target", suite.headline.erased), "kept": headline_column(tab, "retained", suite.headline.kept)} if suite else {}
    return {
        "suite": tab.suite,
        "major": tab.major,
        "versions": tab.versions,
        "title": suite.title if suite else "",
        "description": suite.description if suite else "",
        "facts": _facts(suite) if suite else {},
        "start": tab.start,
        "count": tab.count,
        "tasks": tab.tasks,
        "headline": headline,
        "lines": [{**asdict(line), "colour": palette.get(line.kind, BASE_COLOUR)} for line in tab.lines],
        "columns": [asdict(column) for column in tab.columns],
        "line": tab.line_of,
        "column": tab.column_of,
    }


def _facts(suite: Suite) -> Mapping[str, str]:
    """How the suite draws, for its description."""
    s = suite.sampler
    return {"sampler": f"{s.scheduler}, {s.steps} steps, guidance {s.guidance:g}", "images a prompt": str(suite.images_per_prompt)}
