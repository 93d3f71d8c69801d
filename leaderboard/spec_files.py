"""Where table specs are, and what may be wrong with one. One YAML a table, in ``tables/`` or wherever the user keeps one."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from conceptbench.core.documents import Document, Problem, check, read_document, refuse, unknown
from conceptbench.core.errors import UserInputError, nearest, unknown_name
from conceptbench.leaderboard.published import load_published, published_tables
from conceptbench.leaderboard.specs import FIELDS, NUMBERS, RUN, TIERS, Entry, TableSpec, Where

HINT = "`conceptbench table list` names those that come with the package; leaderboard/specs.py describes the keys"


def _folder() -> Path:
    return Path(str(files("conceptbench.leaderboard"))) / "tables"


def table_ids() -> list[str]:
    """Ids of the tables that come with the package, in the order of the papers."""
    stems = [p.stem for p in _folder().glob("*.yaml")]
    order = [t.replace("/", "-") for t in published_tables()]
    return [_id(s) for s in sorted(stems, key=lambda s: (order.index(s) if s in order else len(order), s))]


def _id(stem: str) -> str:
    """``selective-amnesia-1`` -> ``selective-amnesia/1``: papers have no digits in their names."""
    papers = sorted({t.partition("/")[0] for t in published_tables()}, key=len, reverse=True)
    paper = next((p for p in papers if stem.startswith(f"{p}-")), stem.partition("-")[0])
    return f"{paper}/{stem[len(paper) + 1 :]}"


def load_table(name: str) -> TableSpec:
    """A spec by id, or a file of the user's by path.

    Raises:
        UserInputError: there is none, or it is faulty; every fault is named with its line.
    """
    if name.endswith(".yaml"):
        path = Path(name)
        if not path.is_file():
            raise UserInputError(f"no such file: {name}", HINT)
    elif name in table_ids():
        path = _folder() / f"{name.replace('/', '-')}.yaml"
    else:
        raise unknown_name("table", name, table_ids(), "conceptbench table list")
    return read_table_spec(path)


def read_table_spec(path: Path) -> TableSpec:
    """The spec in a file.

    Raises:
        UserInputError: it is faulty; every fault is named with its line.
    """
    document = read_document(path)
    refuse(document.problems, HINT)
    spec, problems = check(TableSpec, document.value, document)
    refuse(problems, HINT)
    assert spec is not None
    refuse([*_field_problems(spec, document), *_form_problems(spec, document), *_label_problems(spec, document)], HINT)
    return spec


def _wheres(spec: TableSpec) -> Iterator[tuple[tuple[str | int, ...], Where]]:
    yield ("where",), spec.where
    for name, tier in spec.tiers.items():
        yield ("tiers", name, "where"), tier.where
    for place, entry in _entries(spec):
        for key in ("where", *TIERS):
            yield (*place, key), getattr(entry, key)


def _entries(spec: TableSpec) -> Iterator[tuple[tuple[str | int, ...], Entry]]:
    for axis in ("rows", "columns"):
        for b, block in enumerate(getattr(spec, axis)):
            for a, entries in enumerate(block):
                for e, entry in enumerate(entries):
                    yield (axis, b, a, e), entry


def _field_problems(spec: TableSpec, document: Document) -> Iterator[Problem]:
    """Names of fields and runs that do not exist."""
    ids = sorted({r.id for t in spec.tiers.values() for r in t.runs})
    for place, where in _wheres(spec):
        for field, value in where.items():
            line = document.line((*place, field))
            if field not in FIELDS:
                yield unknown(document.path, line, "field of a result row", field, FIELDS)
            wanted = value if isinstance(value, list) else [value]
            yield from (unknown(document.path, line, "run", str(w), ids) for w in wanted if field == RUN and w not in ids)
    for place, entry in _entries(spec):
        if entry.value is not None and entry.value not in NUMBERS:
            yield unknown(document.path, document.line((*place, "value")), "number of a result row", entry.value, NUMBERS)


def _form_problems(spec: TableSpec, document: Document) -> Iterator[Problem]:
    if "mini" in spec.tiers and not spec.tiers["mini"].mapping:
        yield document.problem(("tiers", "mini"), "tiers.mini: `mapping` is missing: say what stands for what")
    axis, _, level = spec.methods.partition(".")
    if any(int(level) >= len(block) for block in getattr(spec, axis)):
        yield document.problem(("methods",), f"methods: {spec.methods}, but the {axis} have fewer levels")


def _label_problems(spec: TableSpec, document: Document) -> Iterator[Problem]:
    """Labels that the published table lacks, and those that the spec lacks: a cell must not get lost by a typing error."""
    if spec.published is None:
        return
    if spec.published not in published_tables():
        yield unknown(document.path, document.line(("published",)), "published table", spec.published, published_tables())
        return
    table = load_published(spec.published)
    labels = {axis: {line.label for tier in spec.tiers for line in spec.lines(axis, tier)} for axis in ("rows", "columns")}  # type: ignore[arg-type]
    for axis, known in (("rows", table.rows), ("columns", table.columns)):
        for label in sorted(labels[axis] - set(known)):
            close = nearest(label, known)
            yield document.problem((axis,), f"{axis}: {spec.published} has no {label!r}" + (f"; did you mean {close!r}?" if close else ""))
        for label in (x for x in known if x not in labels[axis]):
            yield document.problem((axis,), f"{axis}: {label!r} of {spec.published} is missing")
