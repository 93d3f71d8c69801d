"""Reads the tables of the papers' texts: lines of cells with tabs between them, after a line that begins with ``Table N``.

It knows how such tables are built (headers of several levels, blocks with a title, merged cells), and nothing of the files it is an oracle for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby

NUMBER = r"-?\d+(?:\.\d*)?"
VALUE = re.compile(rf"(?P<value>{NUMBER})(?: ± (?P<plus>{NUMBER})| \((?P<brackets>{NUMBER})\)| ?/ ?(?P<second>{NUMBER}))?")
NOTHING = ("", "-")
AXES = ("θ_{dm}", "c_f", "Kn")  # names of an axis that stand among labels
HEADINGS = ("Unlearning methods",)  # over all columns: what columns are, no level of their labels


@dataclass(frozen=True)
class Figure:
    """A printed number with the labels of its row and column."""

    row: str
    column: str
    value: str
    spread: str = ""


def tables_of(text):
    """Number of a table -> its lines of cells."""
    lines, found = text.split("\n"), {}
    for i, line in enumerate(lines):
        caption = re.match(r"Table (\d+)[:.]", line)
        if caption:
            rest = [at for at in range(i + 1, min(i + 6, len(lines))) if "\t" in lines[at]]
            end = next((at for at in range(rest[0], len(lines)) if "\t" not in lines[at]), len(lines)) if rest else i
            found[caption[1]] = [[clean(cell) for cell in line.split("\t")] for line in lines[rest[0] : end]] if rest else []
    return found


def clean(cell):
    return re.sub(r"</?u>", "", cell).strip()


def is_data(cells):
    return any(VALUE.fullmatch(cell) for cell in cells)


def figures_of(lines):
    """The numbers of a table in printed order."""
    data = [cells for cells in lines if is_data(cells)]
    # a column of labels has something that is no number: names, or 1e-3 among the values of a parameter
    labels = next((i for i in range(min(map(len, data), default=0)) if all(VALUE.fullmatch(cells[i]) or cells[i] in NOTHING for cells in data)), 0)
    block, columns, found, above = "", [], [], ""
    for is_body, group in groupby(lines, is_data):
        group = list(group)
        if not is_body:
            title, header = header_of(group, labels, first=not found)
            block, columns = title or block, header or columns
            above = ""
            continue
        for cells in group:
            above = cells[0] or above
            names = [above, *cells[1:labels]] if labels > 1 else cells[:1]
            row = joined([block, *map(plain, names)])
            found += [figure for column, cell in placed(columns, cells[labels:]) for figure in figures_in(row, column, cell)]
    return found


def header_of(lines, labels, *, first):
    """The title of the block that begins here, and its columns as lists of levels."""
    title, levels = "", []
    for cells in lines:
        own, rest = cells[:labels], [cell for cell in cells[labels:] if cell not in AXES]
        names = [cell for cell in own if cell and cell not in AXES]
        values = [cell for cell in rest if cell]
        if any(cell.startswith("$[c") for cell in values) or values in [[heading] for heading in HEADINGS]:
            continue  # what a step knows; a heading
        if len(values) > 1:
            levels.append(rest)
            title = title if first or not names else block_title(names[0])
        elif values or names:
            title = block_title(values[0] if values else names[0])
    width = max((max((i + 1 for i, cell in enumerate(level) if cell), default=0) for level in levels), default=0)
    filled = [spanning(level, width) for level in levels[:-1]] + [[*level, *[""] * width][:width] for level in levels[-1:]]
    return title, [tuple(plain(level[i]) for level in filled if level[i]) for i in range(width)]


def spanning(level, width):
    """A level whose labels reach over the empty cells to their right."""
    out = []
    for cell in [*level, *[""] * width][:width]:
        out.append(cell or (out[-1] if out else ""))
    return out


def placed(columns, cells):
    """Pairs of a column's label and a cell; a number beside nothing, below a label of two columns, belongs to both."""
    assert not any(cells[len(columns) :]), f"more cells than columns: {cells}"
    for i, (levels, cell) in enumerate(zip(columns, cells, strict=False)):
        beside = [cells[j] for j, other in enumerate(columns) if j != i and other[0] == levels[0]]
        yield joined(levels[:1] if beside and not any(beside) else levels), cell


def figures_in(row, column, cell):
    if cell in NOTHING:
        return []
    found = VALUE.fullmatch(cell)
    assert found, f"{row}, {column}: {cell!r} is no number"
    if found["second"]:
        return [Figure(row, joined([column, "ACC"]), found["value"]), Figure(row, joined([column, "LPIPS"]), found["second"])]
    return [Figure(row, column, found["value"], found["plus"] or found["brackets"] or "")]


def joined(levels):
    return " | ".join(level for level in levels if level)


def block_title(text):
    """``SepME ₁ -(ACC/LPIPS)- Kn = ...`` is SepME1, ``G-CiRs-(ACC/LPIPS)-(to_k;to_v)`` is G-CiRs (to_k, to_v)."""
    text = plain(re.sub(r"[-$ ]*Kn.*", "", re.sub(r"[- ]*\(ACC/LPIPS\)", "", text)).replace("Abconcept", "AbConcept"))
    parts = re.fullmatch(r"(SepME\d?|AbConcept|G-CiRs)[- ]+\(?([^)]+)\)?", text)
    return f"{parts[1]} ({parts[2].replace(';', ', ')})" if parts else text


def plain(text):
    """A label without LaTeX and without the arrows that say what is better; sums of weights are written out."""
    text = text.replace("$", "").replace(r"\text{dm}", "dm").replace(r"\bar{\uparrow}", "↑").replace(r"\uparrow", "↑").replace(r"\downarrow", "↓")
    text = re.sub(r" *\([↑↓/]+\)| *[↑↓]", "", text)
    text = re.sub(r"\\sum_\{i=(\d)\}\^(\d) *\\Delta\\theta_\{i, dm\}", lambda m: sum_of(range(int(m[1]), int(m[2]) + 1)), text)
    text = re.sub(r"\\sum_\{i \\in \\\{([\d, ]+)\\\}\} *\\Delta\\theta_\{i, dm\}", lambda m: sum_of(m[1].replace(" ", "").split(",")), text)
    text = re.sub(r"\\Delta\\theta_\{(\d), dm\}", r"Δθ\1", text)
    text = text.replace(r"\ \Delta\theta_{dm}\ _p", "‖Δθ‖p")
    text = text.replace(r"\sum \cdot^*", "Σ*").replace(r"\sum \cdot \dagger", "Σ†").replace(r" \dagger", "†").replace(r"\lambda", "λ")
    text = re.sub(r"\\mathbf\{(\w)\}(?:_(\w))?", lambda m: m[1] + (m[2] or ""), text.replace(r"P_\phi", "Pφ")).replace(" xf)", "|xf)")
    return re.sub(r" *([₀-₉]+)", lambda m: m[1].translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")), text).strip()


def sum_of(numbers):
    return "+".join(f"Δθ{n}" for n in numbers)
