"""Per-image records that other tools made: which column of their file is what, and which image each row is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conceptbench.core.documents import Problem, read_yaml
from conceptbench.core.errors import UserInputError, nearest, unknown_name
from conceptbench.core.schemas import Role
from conceptbench.engine.foreign_tables import Table, is_missing, refuse_some

ROLES: Mapping[str, str] = {
    "image": "the image's id, e.g. case_number; pairs and duplicates are told by it and `number`",
    "number": "which of an id's or a prompt's images it is",
    "prompt": "the prompt: the cluster of the intervals",
    "prompt_id": "the prompt's id, which is the cluster if both are mapped",
    "concept": "what the image was asked to show",
    "erased": "the concept that the image's model had erased; its rows are targets, all others retained",
    "labels": "a detector's labels, several in one cell",
    "scores": "their scores, in the same order",
    "detections": "JSON list of mappings with `class` or `label`, and `score` (NudeNet's own output)",
    "top": "pattern of a classifier's answers, best first: class names or indices, e.g. category_top{}",
    "top_scores": "pattern of their scores, e.g. scores_top{}",
    "clip": "CLIP score of image and prompt",
    "clip-subject": "CLIP score of image and concept, e.g. the artist alone",
    "clip-content": "CLIP score of image and prompt without the concept",
    "lpips": "LPIPS",
    "gcd": "largest probability of the concept among the image's faces",
    "faces": "number of faces",
}
"""Role of ``--map`` -> what its column holds. Besides: ``value:NAME``, any number, and ``rate:NAME``, 0 or 1."""
FREE = re.compile(r"(value|rate):[\w.-]+")
PATTERNS = ("top", "top_scores")
CLIP = ("clip", "clip-subject", "clip-content")
MEASURED = ("labels", "scores", "detections", *CLIP, "lpips", "gcd", "faces")
NEEDS = {"scores": "labels", "top_scores": "top", "gcd": "faces"}
HINT = "--map ROLE=COLUMN, or --map FILE.yaml; roles: " + ", ".join(ROLES) + ", value:NAME, rate:NAME"
LISTED = 20  # images without a partner that an error lists
NO_CONCEPT = "images"
"""What stands for the concept of a file that names none."""


@dataclass(frozen=True)
class ForeignRecord:
    """One image.

    Attributes:
        line: of the file.
        image: its id; where no column says, its prompt if ``number`` is mapped, else the row's number.
        number: which of the id's images.
        cluster: the prompt's id or the prompt; the row where the file has neither.
        prompt: as in the file; may be empty.
        concept, role: what it was asked to show, and whether that was erased.
        erased: the erased concept, if a column says.
        cells: role, ``value:NAME`` or ``rate:NAME`` -> cell, of what was measured.
        top, top_scores: the classifier's answers and their scores, best first; empty if they are not mapped.
    """

    line: int
    image: str
    number: int
    cluster: str
    prompt: str
    concept: str
    role: Role
    erased: str = ""
    cells: Mapping[str, str] = field(default_factory=dict)
    top: tuple[str, ...] = ()
    top_scores: tuple[str, ...] = ()

    @property
    def pair(self) -> tuple[str, int]:
        """What an image and its partner share: id and number."""
        return self.image, self.number


@dataclass(frozen=True)
class ForeignFile:
    """The images of a file.

    Attributes:
        path: of the file.
        records: one a row, in its order.
        roles: what is mapped.
        clustered: ``prompt_id``, ``prompt`` or, where neither is mapped, ``row``.
    """

    path: Path
    records: tuple[ForeignRecord, ...]
    roles: frozenset[str]
    clustered: str

    def concepts(self) -> list[str]:
        """The concepts in the order of the file, each once."""
        return list(dict.fromkeys(r.concept for r in self.records))

    def has(self, role: str) -> bool:
        """Whether a column is mapped to a role."""
        return role in self.roles


def folded(text: str) -> str:
    """A name without case, spaces and punctuation: ``Kelly McKernan``, ``kelly_mckernan`` and ``KellyMcKernan`` are one."""
    return "".join(c for c in text.casefold() if c.isalnum()) or text


# -- which column is what --------------------------------------------------------------------------------------------
def read_mapping(entries: Sequence[str]) -> dict[str, str]:
    """``role=column`` entries, and YAML files of them, as one mapping.

    Raises:
        UserInputError: an unknown role (with the nearest), a role twice, or an entry of another form; all at once.
    """
    pairs: list[tuple[str, str]] = []
    wrong: list[str] = []
    for entry in entries:
        role, equals, column = entry.partition("=")
        if equals:
            pairs.append((role.strip(), column))
        elif entry.endswith((".yaml", ".yml")):
            value = read_yaml(Path(entry))
            pairs += [(str(k), str(v)) for k, v in value.items()] if isinstance(value, dict) else []
            wrong += [] if isinstance(value, dict) else [f"{entry} is not a mapping of roles to columns"]
        else:
            wrong.append(f"{entry!r} is neither ROLE=COLUMN nor a YAML file")
    found: dict[str, str] = {}
    for role, column in pairs:
        if role not in ROLES and not FREE.fullmatch(role):
            wrong.append(unknown_name("role", role, ROLES).message)
        elif role in found:
            wrong.append(f"the role {role!r} is mapped twice: {found[role]!r} and {column!r}")
        found.setdefault(role, column)
    wrong += [f"the role {role!r} needs the role {other!r} beside it" for role, other in NEEDS.items() if role in found and other not in found]
    if {"labels", "detections"} <= found.keys():
        wrong.append("either 'labels' or 'detections', not both")
    if not wrong and not any(r in MEASURED or r == "top" or FREE.fullmatch(r) for r in found):
        wrong.append("no column with anything measured is mapped")
    if wrong:
        raise UserInputError("; ".join(wrong), HINT)
    return found


def numbered_columns(pattern: str, columns: Sequence[str]) -> list[str]:
    """The columns of a pattern such as ``category_top{}``, best first: numbered from 1 or 0 without a gap. Without ``{}``: one column."""
    if "{}" not in pattern:
        return [pattern] if pattern in columns else []
    first = 0 if pattern.replace("{}", "0") in columns else 1
    found: list[str] = []
    while (name := pattern.replace("{}", str(first + len(found)))) in columns:
        found.append(name)
    return found


def column_problems(table: Table, mapping: Mapping[str, str]) -> list[Problem]:
    """Mapped columns that the file does not have, with the nearest that it has."""
    problems = []
    for role, column in mapping.items():
        if numbered_columns(column, table.columns) if role in PATTERNS else column in table.columns:
            continue
        wanted = column.replace("{}", "1") if role in PATTERNS else column
        close = nearest(wanted, table.columns)
        instead = f"; did you mean {close!r}?" if close else f" (columns: {', '.join(c for c in table.columns if c)})"
        problems.append(Problem(table.path, 1, f"no column {wanted!r} for the role {role!r}{instead}"))
    counts = {r: len(numbered_columns(mapping[r], table.columns)) for r in PATTERNS if r in mapping}
    if not problems and len(set(counts.values())) > 1:
        problems.append(Problem(table.path, 1, f"{counts['top']} columns of answers and {counts['top_scores']} of their scores"))
    return problems


# -- roles of concepts -----------------------------------------------------------------------------------------------
def concept_roles(names: Sequence[str], erased: Sequence[str], kept: Sequence[str]) -> Callable[[str], Role]:
    """What says whether a concept is a target or retained.

    Args:
        names: the file's concepts.
        erased: what the user said was erased.
        kept: and what was not; if only one of both is given, all others are the other; if neither, all are targets.

    Raises:
        UserInputError: a name that the file does not have (with the nearest), one in both lists or, where both are given, in
            none, or several concepts and neither list; all at once.
    """
    known = {folded(n): n for n in names}
    wrong = [unknown_name("concept", n, names).message for n in (*erased, *kept) if folded(n) not in known]
    targets, others = ({folded(n) for n in group} for group in (erased, kept))
    wrong += [f"{known[n]!r} is both erased and kept" for n in sorted(targets & others) if n in known]
    if erased and kept:
        wrong += [f"{name!r} is neither erased nor kept" for n, name in known.items() if n not in targets | others]
    if not erased and not kept and len(known) > 1:
        wrong.append("the records are of several concepts, and nothing says which were erased")
    if wrong:
        raise UserInputError("; ".join(wrong), f"--erased A,B and --kept C,D; the records' concepts: {', '.join(sorted(names))}")
    return lambda name: "retained" if folded(name) in others or (erased and folded(name) not in targets) else "target"


# -- images ----------------------------------------------------------------------------------------------------------
def images_of(table: Table, mapping: Mapping[str, str], *, concept: str = "", erased: Sequence[str] = (), kept: Sequence[str] = ()) -> ForeignFile:
    """The images of a table.

    Args:
        table: the file.
        mapping: role -> column.
        concept: of the whole file, if no column says.
        erased: names of concepts (:func:`concept_roles`).
        kept: names of the others.

    Raises:
        UserInputError: a column is missing, a row has no image id or concept, a number is not whole, or an image is there
            twice; the first problems are named with their lines, and all are counted.
    """
    refuse_some(column_problems(table, mapping), HINT)
    if concept and "concept" in mapping:
        raise UserInputError("--concept names the concept of the whole file, and a column is mapped to it", "give one of both")
    if "erased" in mapping and (erased or kept or "concept" not in mapping):
        raise UserInputError("a column `erased` says who is a target: it needs a column `concept`, and neither --erased nor --kept", HINT)
    column = mapping.get("concept")
    names = list(dict.fromkeys(row[column].strip() for _, row in table.rows if row[column].strip())) if column else [concept or NO_CONCEPT]
    role_of = concept_roles(names, names if "erased" in mapping else erased, kept)  # a column `erased` wins over it
    problems: list[Problem] = []
    records = [_record(table, mapping, line, row, names[0], role_of, problems) for line, row in table.rows]
    seen: dict[tuple[object, ...], int] = {}
    for r in records:
        if seen.setdefault((r.erased, *r.pair), r.line) != r.line:
            problems.append(Problem(table.path, r.line, f"image {r.image!r}, number {r.number}, is in line {seen[r.erased, *r.pair]} already"))
    refuse_some(problems, "each row is one image: map `number` for several images of an id, or map no `image` where nothing tells them apart")
    clustered = next((c for c in ("prompt_id", "prompt") if c in mapping), "row")
    return ForeignFile(table.path, tuple(records), frozenset(mapping), clustered)


def _record(
    table: Table, mapping: Mapping[str, str], line: int, row: Mapping[str, str], default: str, role_of: Callable[[str], Role], problems: list[Problem]
) -> ForeignRecord:
    cell = {role: row[column].strip() for role, column in mapping.items() if role not in PATTERNS}
    number, own = cell.get("number", "0"), cell.get("concept", default)
    problems += [Problem(table.path, line, f"the {role} is empty") for role in ("image", "number", "concept", "prompt_id") if cell.get(role) == ""]
    if number and not _id(number).isdecimal():
        problems.append(Problem(table.path, line, f"number {number!r} is not a whole number"))
    cluster = next((cell[c] for c in ("prompt_id", "prompt") if c in cell), "")
    identity = cell.get("image") or (cluster if "number" in cell else "") or f"row {line}"
    erased = "" if is_missing(cell.get("erased", "")) else cell["erased"]
    top, scores = (tuple(row[c].strip() for c in numbered_columns(mapping.get(p, ""), table.columns)) for p in PATTERNS)
    return ForeignRecord(
        line=line,
        image=_id(identity),
        number=int(_id(number)) if _id(number).isdecimal() else 0,
        cluster=cluster if {"prompt_id", "prompt"} & cell.keys() else f"row {line}",
        prompt=cell.get("prompt", ""),
        concept=own,
        role=("target" if folded(own) == folded(erased) else "retained") if "erased" in cell else role_of(own),
        erased=erased,
        cells={role: text for role, text in cell.items() if role in MEASURED or FREE.fullmatch(role)},
        top=top,
        top_scores=scores,
    )


def _id(text: str) -> str:
    """An id, without the decimals that pandas gives to a column of whole numbers in which one is missing."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)


def partners(images: ForeignFile, base: ForeignFile) -> list[ForeignRecord]:
    """The base's record of each image: the same id and number.

    Raises:
        UserInputError: ids are not mapped, or images have no partner or one of another prompt; the first :data:`LISTED` are named.
    """
    if not ("image" in images.roles or {"number"} < images.roles & {"number", "prompt", "prompt_id"}):
        raise UserInputError("pairs need to know which image each row is", "map `image`, or `number` and `prompt` or `prompt_id`, in both files")
    by_key = {r.pair: r for r in base.records}
    missing = [f"image {r.image!r}, number {r.number} (line {r.line})" for r in images.records if r.pair not in by_key]
    if missing:
        named = "; ".join(missing[:LISTED]) + (" ..." if len(missing) > LISTED else "")
        raise UserInputError(f"{len(missing)} images have no partner in {base.path.name}: {named}", "give records of the base for the same prompts and seeds")
    found = [by_key[r.pair] for r in images.records]
    other = [f"{r.image!r} (lines {r.line} and {b.line})" for r, b in zip(images.records, found, strict=True) if r.prompt != b.prompt]
    if other:
        named = "; ".join(other[:LISTED]) + (" ..." if len(other) > LISTED else "")
        raise UserInputError(
            f"{len(other)} images have a partner of another prompt in {base.path.name}: {named}", "the ids of both files must be of one prompt set"
        )
    return found
