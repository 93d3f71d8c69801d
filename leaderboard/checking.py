"""``conceptbench leaderboard check``: is a submission what it says, as far as that can be found out?

Of a submission folder: the schema of every row, the hashes of all files, the suite (is it the installed one of that name and version?),
the sources of erasers and metrics and the weights of judges against what is installed, whether every row is complete, and every value, interval and
difference derived again from the evidence and compared in its six digits. Of a bare CSV: its schema and whether its rows are complete.

What no check can detect: images that the named model never drew. Who makes records up (or draws with another model) and derives rows from them
has a submission without a contradiction; only running it again shows that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conceptbench.core.documents import Problem
from conceptbench.core.errors import ConceptBenchError, UserInputError, nearest
from conceptbench.core.judge import JudgeCard
from conceptbench.core.manifests import load_suite
from conceptbench.core.registry import JUDGES
from conceptbench.core.results import COLUMNS, ResultRow, safe_cell
from conceptbench.core.schemas import Suite
from conceptbench.engine.doctor import judge_card
from conceptbench.engine.lineup import CHECKPOINT, resolve
from conceptbench.engine.measures import metric_sources
from conceptbench.engine.plan import Plan, make_plan
from conceptbench.leaderboard.board import Key, Placed, board_problems, key_of_row, read_board, told
from conceptbench.leaderboard.deriving import Derived, derive, installed_suite
from conceptbench.leaderboard.evidence import measures_of
from conceptbench.leaderboard.manifest import NAME, ROWS, Manifest, RunPart, file_problems, read_manifest
from conceptbench.leaderboard.origins import line_up_problems, origin_problems
from conceptbench.models.info import BaseInfo

COMPARED = tuple(c for c in COLUMNS if c not in ("environment", "hardware"))
LIMITS = "no check can detect images that were never drawn by the model that is named: only running it again shows that"


@dataclass
class Checked:
    """What a check found.

    Attributes:
        path: the submission or board.
        rows: how many there are.
        derived: how many were derived again and compared.
        problems: everything that is wrong.
        notes: what was not checked, and why.
    """

    path: Path
    rows: int = 0
    derived: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check(path: Path, allowed: Collection[str] = (), suites: Sequence[str] = ()) -> Checked:
    """Checks a submission folder, or a bare leaderboard CSV (packed or not), as the module says.

    Args:
        path: which one.
        allowed: statuses besides ``ok`` that pass.
        suites: further suites by YAML file, for submissions of suites that are not shipped.
    """
    found = Checked(path)
    if not path.is_dir():
        board = read_board(path)
        found.rows, found.problems = len(board.rows), board_problems(board, allowed)
        found.notes.append("only the schema was checked: a bare CSV has no evidence; `conceptbench leaderboard export` makes a submission that has it")
        return found
    manifest, found.problems = read_manifest(path)
    if manifest is None:
        return found
    found.problems += file_problems(path, manifest)
    board = read_board(path / ROWS)
    found.rows = len(board.rows)
    found.problems += board_problems(board, allowed)
    found.problems += _count_problems(path, manifest, board.rows)
    found.problems += line_up_problems(path, manifest, board.rows)
    _Derivation(path, manifest, board.rows, found, _by_name(suites)).run()
    found.notes.append(LIMITS)
    return found


def _by_name(files: Sequence[str]) -> dict[str, str]:
    return {load_suite(file).name: file for file in files}


def _count_problems(path: Path, manifest: Manifest, rows: Sequence[Placed]) -> Iterator[Problem]:
    status = dict(sorted(Counter(p.row.status for p in rows).items()))
    if (len(rows), status) != (manifest.rows, manifest.status):
        there, said = (f"{n} rows ({', '.join(f'{v} {k}' for k, v in by.items())})" for n, by in ((len(rows), status), (manifest.rows, manifest.status)))
        yield Problem(path / ROWS, None, f"it has {there}, and the manifest says {said}")


class _Derivation:
    """Derives the rows of a submission again and compares them."""

    def __init__(self, path: Path, manifest: Manifest, rows: Sequence[Placed], found: Checked, suites: Mapping[str, str]) -> None:
        self.path, self.manifest, self.rows, self.found, self.suites = path, manifest, rows, found, suites
        self.given: dict[Key, ResultRow] = {}
        self.without: dict[str, str] = {}
        self.unchecked: set[tuple[str, str]] = set()  # suites and versions of which nothing is derived; another line says why

    def run(self) -> None:
        """Every run of the submission, and then every row."""
        for part in self.manifest.runs:
            try:
                self._run(part)
            except ConceptBenchError as error:
                self.unchecked.add((part.suite.name, part.suite.version))
                self._problem(f"run {part.folder}: nothing can be derived: {error.message}" + (f"; {error.hint}" if error.hint else ""))
        self._compare()

    def _problem(self, message: str) -> None:
        self.found.problems.append(Problem(self.path / NAME, None, message))

    def _run(self, part: RunPart) -> None:
        plan = self._plan(part)
        if plan is None:
            self.unchecked.add((part.suite.name, part.suite.version))
            return
        self._hashes(part, plan)
        folder = self.path / part.folder
        if not folder.is_dir():
            raise UserInputError(f"its evidence is not there: {folder}", "export the run again")
        weights = {(e.task, e.spec): e.sha256 for e in part.erasures}
        declared: dict[tuple[str, str, str], ResultRow] = {}
        for placed in self.rows:
            row = placed.row
            if (row.suite, row.suite_version) == (part.suite.name, part.suite.version):
                known = weights.get((row.task, f"{row.eraser}:{row.preset}"))
                if known is None or known == row.erasure_sha256:
                    declared.setdefault((row.task, row.eraser, row.preset), row)
        absent = {w.protocol: w.reason for w in self.manifest.without_evidence if w.folder == part.folder}
        mine = (p.row.environment for p in self.rows if (p.row.suite, p.row.suite_version) == (part.suite.name, part.suite.version))
        problems, notes = origin_problems(self.path, part, plan, next(mine, ""))
        self.found.problems += problems
        self.found.notes += notes
        self._add(part, derive(plan, part, folder, declared, absent), absent)

    def _add(self, part: RunPart, derived: Derived, absent: Mapping[str, str]) -> None:
        self.found.problems += [Problem(self.path / part.folder / "records.csv", None, text) for text in derived.problems]
        for row in derived.rows:
            if row.protocol not in absent:
                self.given[key_of_row(row)] = row
        self.without |= {**derived.without, **absent}

    # -- suite and sources -------------------------------------------------------------------------------------------
    def _plan(self, part: RunPart) -> Plan | None:
        """Suite and images as they are installed here; None with a problem if they are others."""
        asked = part.suite
        suite: Suite = load_suite(self.suites.get(asked.name, asked.name))
        if suite.version != asked.version:
            self._problem(
                f"run {part.folder}: it is of suite {asked.name} {asked.version}, and installed is {suite.version}: check it with the version that has it"
            )
            return None
        info = BaseInfo(part.base, part.family, "", {})
        plan = make_plan(installed_suite(part, suite), info, [], limit=asked.limited, split="development" if asked.development else None)
        if plan.content_key() != asked.sha256:
            self._problem(
                f"run {part.folder}: suite {asked.name} {asked.version} has sha256 {asked.sha256}, and the installed one {plan.content_key()}: "
                "its tasks, metrics, concepts, prompts or seeds are others"
            )
            return None
        return plan

    def _hashes(self, part: RunPart, plan: Plan) -> None:
        """Sources and weights against what is installed."""
        for eraser in part.erasers:
            self._eraser(part, eraser.spec, eraser.sha256)
        installed = metric_sources(measures_of(plan.suite, part.cards()))
        for used in part.metrics:
            here = installed.get(used.protocol)
            if here is None:
                self._problem(f"run {part.folder}: metric {used.protocol} is not what suite {plan.suite.name} measures{_near(used.protocol, installed)}")
            elif here != used.sha256:
                self._problem(f"run {part.folder}: metric {used.protocol} has source {used.sha256}, and the installed one {here}: another version of it")
        for protocol in sorted(installed.keys() - {used.protocol for used in part.metrics}):
            self._problem(f"run {part.folder}: the manifest does not say which version of metric {protocol} was run")
        for name, card in part.cards().items():
            self._judge(part, name, card)

    def _eraser(self, part: RunPart, spec: str, sha256: str) -> None:
        if spec.endswith(f":{CHECKPOINT}"):
            return
        try:
            here = resolve(spec, family=part.family, tier="mini").source_sha256
        except ConceptBenchError as error:
            self.found.notes.append(f"the source of {spec} was not compared: {error.message}")
            return
        if here != sha256:
            self._problem(f"run {part.folder}: eraser {spec} has source {sha256}, and the installed one {here}: another version of it")
        wrong = [p for p in self.rows if f"{p.row.eraser}:{p.row.preset}" == spec and p.row.suite == part.suite.name and p.row.plugin_sha256 != sha256]
        self.found.problems += [p.problem(f"plugin_sha256 is {p.row.plugin_sha256 or 'empty'}, and the manifest says {sha256}") for p in wrong]

    def _judge(self, part: RunPart, name: str, card: JudgeCard) -> None:
        if name not in JUDGES.names():
            self.found.notes.append(f"judge {name} was not compared: it is one of the suite's own, or not installed")
            return
        try:
            here = judge_card(name)
        except ConceptBenchError as error:
            self.found.notes.append(f"judge {name} was not compared: {error.message}")
            return
        if here.sha256 != card.sha256:
            self._problem(f"run {part.folder}: judge {name} has weights {card.sha256}, and the installed one {here.sha256}")
        elif here.preprocessing != card.preprocessing:
            self._problem(f"run {part.folder}: judge {name} prepares images by {card.preprocessing!r}, and the installed one by {here.preprocessing!r}")
        elif dict(here.labels) != dict(card.labels):
            self._problem(f"run {part.folder}: judge {name} has other labels than the installed one")

    # -- rows --------------------------------------------------------------------------------------------------------
    def _compare(self) -> None:
        """Each row against what was derived, and what was derived against the rows."""
        missing = dict(self.given)
        protocols = {r.protocol for r in self.given.values()} | set(self.without)
        known = {(p.suite.name, p.suite.version) for p in self.manifest.runs}
        for placed in self.rows:
            row = placed.row
            expected = missing.pop(key_of_row(row), None) or self.given.get(key_of_row(row))
            if row.status == "failed":
                continue
            if expected is not None:
                self.found.derived += 1
                self.found.problems += [placed.problem(text) for text in _other_cells(row, expected)]
            elif (row.suite, row.suite_version) not in known:
                found = ", ".join(f"{n} {v}" for n, v in sorted(known))
                self.found.problems.append(placed.problem(f"it is of suite {row.suite} {row.suite_version}, and the submission has evidence of {found}"))
            elif row.protocol not in self.without and (row.suite, row.suite_version) not in self.unchecked:
                self.found.problems.append(placed.problem(self._unknown(row, protocols)))
        self.found.problems += [Problem(self.path / ROWS, None, f"the row is missing: {told(r)}, which the evidence gives") for r in missing.values()]
        self._say_what_was_not()

    def _unknown(self, row: ResultRow, protocols: Collection[str]) -> str:
        if row.protocol not in protocols:
            return f"protocol is {row.protocol!r}, which suite {row.suite} {row.suite_version} does not measure{_near(row.protocol, protocols)}"
        alike = [
            r
            for r in self.given.values()
            if (r.task, r.role, r.concept, r.eraser, r.preset, r.protocol) == (row.task, row.role, row.concept, row.eraser, row.preset, row.protocol)
        ]
        for name in ("base_sha256", "erasure_sha256", "train_seed"):
            if alike and getattr(alike[0], name) != getattr(row, name):
                return f"{name} is {getattr(row, name)}, and the evidence is of {getattr(alike[0], name)}"
        return f"no evidence gives this row: {told(row)}"

    def _say_what_was_not(self) -> None:
        counts = Counter(p.row.protocol for p in self.rows if p.row.protocol in self.without and key_of_row(p.row) not in self.given)
        by_reason: dict[str, list[str]] = {}
        for protocol in counts:
            by_reason.setdefault(self.without[protocol], []).append(protocol)
        for reason, protocols in by_reason.items():
            rows = sum(counts[p] for p in protocols)
            self.found.notes.append(f"{rows} rows were not derived again ({', '.join(sorted({p.partition('@')[0] for p in protocols}))}): {reason}")


def _near(protocol: str, known: Collection[str]) -> str:
    close = nearest(protocol, known)
    return f"; the nearest is {close!r}" if close else ""


def _other_cells(row: ResultRow, expected: ResultRow) -> Iterator[str]:
    """Cells that are not what was derived."""
    for name in COMPARED:
        found, wanted = safe_cell(getattr(row, name)), safe_cell(getattr(expected, name))
        if found != wanted:
            yield f"{name} is {found or 'empty'}, and the evidence gives {wanted or 'none'}: {told(row)}"
