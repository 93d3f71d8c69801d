"""How a board is cited: a BibTeX entry that says which rows it is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass

from conceptbench import __version__
from conceptbench.leaderboard.site_data import Board

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    **{c: f"\\{c}" for c in "{}#$%&_"},
}


@dataclass(frozen=True)
class Citation:
    """What the page is called, and what else its BibTeX entry says; empty fields are left out."""

    title: str = "ConceptBench leaderboard"
    author: str = ""
    year: str = ""
    url: str = ""


def latex(text: str) -> str:
    """The text as LaTeX shows it, in one line: nothing in it is a command or ends a group."""
    return "".join(LATEX.get(c, c) for c in " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", text).split()))


def bibtex(citation: Citation, digest: str, board: Board) -> str:
    """The entry of a board.

    Args:
        citation: title, author, year and address.
        digest: sha256 of its rows as CSV.
        board: names its suites.
    """
    address = re.sub(r"[{}%\\\s]", "", citation.url)
    suites = ", ".join(f"{t.suite} {'/'.join(t.versions)}" for t in board.tabs)
    fields = {
        "title": f"{{{latex(citation.title)}}}",
        "author": latex(citation.author),
        "year": latex(citation.year),
        "howpublished": rf"\url{{{address}}}" if address else "",
        "note": latex(f"Suites: {suites}. ConceptBench {__version__}; {len(board.rows)} rows with sha256 {digest[:16]}"),
    }
    lines = [f"  {name:<12} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@misc{{conceptbench-{digest[:8]},", *lines, "}\n"])
