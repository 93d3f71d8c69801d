"""Rows of what is erased, kept, brought back and unseen are apart, for every kind of metric."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from kinds import by_place, suite_with
from running import carry_out

from conceptbench.core.errors import UserInputError
from conceptbench.core.registry import ERASERS
from conceptbench.core.results import Estimate
from conceptbench.core.schemas import Task
from conceptbench.engine import groups
from conceptbench.engine.compare import compare
from conceptbench.engine.provenance import write_results
from conceptbench.engine.records import read_records
from conceptbench.engine.report import report_from_results
from conceptbench.engine.score_derived import RowEstimates
from conceptbench.engine.sides import read_side
from conceptbench.models.eraser import Eraser, EraserConfig, Supports
from conceptbench.models.erasure import Erasure, RuntimeSpec, values_of

PROMPTS = 4
FAR = {"metric": "far", "judge": "colour"}
METRICS = (
    FAR,
    {**FAR, "options": {"beside": "others"}},
    {**FAR, "options": {"beside": "grey", "n": 6}},
    {"metric": "brightness", "judge": "colour"},
    {"metric": "weight_probe"},
    {"metric": "gap"},
)
ROLES = {"ab": "restored", "ef": "target", "gh": "retained", "ij": "unseen"}


class Hider(Eraser[EraserConfig]):
    """Halves the value projections; what brings images back draws others yet."""

    name = "hider"
    supports = Supports(recover=True)

    def erase(self, base, request, config, ctx):
        before = values_of(base.parameters("kv"))
        made = Erasure.additive(before, {n: 0.5 * v for n, v in before.items()})
        made.hidden, made.recovery = {"prompt": torch.ones(2)}, RuntimeSpec("negative-prompt", {"text": "gh"})
        return made


ERASERS.add("hider", Hider)


@pytest.fixture(scope="module")
def done(tmp_path_factory, folders):
    """A run in which one concept has each role, its rows by place, and the folder of its results."""
    root = tmp_path_factory.mktemp("groups")
    path = suite_with(root, *METRICS, splits=["back", "other"])
    suite = yaml.safe_load(path.read_text())
    concepts = [*yaml.safe_load((root / "suite" / "concepts.yaml").read_text()), {"name": "ij", "kind": "object", "phrases": ["ij"], "labels": ["subject/red"]}]
    (root / "suite" / "concepts.yaml").write_text(yaml.safe_dump(concepts))
    with (root / "suite" / "prompts.csv").open("a") as file:
        file.writelines(
            f"ij-{split[0]}{i},ij {'abcd'[i]}{' x' if split == 'development' else ''},ij,{split}\n" for split in ("heldout", "development") for i in range(4)
        )
    prompts = {"set": str(root / "suite" / "prompts.csv")}
    whole = {"targets": ["ab", "ef"], "retained": ["gh"], "unseen": ["ij"], "restored": ["ab"], "prompts": prompts}
    suite["tasks"] = [{"id": "back", **whole}, {"id": "other", **whole, "restore_with": "random"}, {"id": "plain", **whole, "restored": []}]
    path.write_text(yaml.safe_dump(suite, sort_keys=False))
    outcome, runner = carry_out(path, folders, root / "store", ["hider"])
    assert not outcome.failures
    write_results(outcome, runner.measures.judges, root / "out", runner.store)
    return outcome, by_place(outcome.rows), root / "out", runner.store


def roles_of(rows, metric, task="back", who="hider"):
    return {(k[3], k[4]) for k in rows if k[:3] == (task, who, metric)}


BOTH = {(role, concept) for name, role in ROLES.items() for concept in ("*", name)}
KEPT = {p for p in BOTH if p[0] != "target"}


@pytest.mark.parametrize(
    ("metric", "who", "expected"),
    [
        ("psr-1", "hider", KEPT),  # images
        ("esr-1", "hider", BOTH - KEPT),
        ("brightness", "base", BOTH),
        ("lpips", "hider", BOTH),  # pairs
        ("far-base", "hider", BOTH),  # sets
        ("far-grey", "hider", BOTH),
        ("far-others", "hider", {p for p in BOTH if p[1] != "*"}),
        ("weight_probe", "hider", {p for p in BOTH if p[0] != "retained"}),  # not about gh
        ("weight_probe-twice", "base", {p for p in BOTH if p[0] != "retained"}),
        ("gap", "hider", {("model", "*")}),
        ("cost-network_evaluations", "hider", {("model", "*")}),
    ],
)
def test_every_kind_of_metric_has_the_roles(done, metric, who, expected):
    assert roles_of(done[1], metric, who=who) == expected


@pytest.mark.parametrize("metric", ["psr-1", "brightness", "lpips", "far-base", "far-grey"])
@pytest.mark.parametrize("role", ["retained", "restored", "unseen"])
def test_a_row_over_all_concepts_is_of_its_role_alone(done, metric, role):
    rows, name = done[1], next(n for n, r in ROLES.items() if r == role)
    whole, one = (rows["back", "hider", metric, role, c] for c in ("*", name))
    assert whole.model_copy(update={"concept": name}) == one and whole.n_planned == PROMPTS


def test_what_is_brought_back_is_compared_with_the_base(done):
    row = done[1]["back", "hider", "brightness", "restored", "*"]
    base = done[1]["back", "base", "brightness", "restored", "*"]
    assert row.base_value == base.value and row.delta == pytest.approx(row.value - base.value) and row.delta_low is not None and row.delta != 0
    assert done[1]["plain", "hider", "brightness", "target", "ab"].value != row.value  # it is another model that draws it
    for metric in ("psr-1", "far-grey", "weight_probe"):
        assert done[1]["back", "hider", metric, "restored", "*"].base_value is not None, metric
    assert done[1]["back", "hider", "weight_probe", "restored", "ab"].better == "lower"  # as measured for what is kept


def test_derived_metrics_know_targets_and_what_is_kept_only(done):
    rows = done[1]
    gap, own = rows["back", "hider", "gap", "model", "*"], [rows["back", "hider", m, r, "*"].value for m, r in (("esr-1", "target"), ("psr-1", "retained"))]
    assert gap.value == pytest.approx(own[0] - own[1])
    estimates = RowEstimates([r for r in done[0].rows if (r.task, r.eraser) == ("back", "hider")], [])
    assert estimates.concepts("psr-1", "retained") == ["gh"] and isinstance(estimates.of("psr-1", "retained"), Estimate)
    with pytest.raises(UserInputError):
        estimates.of("psr-1", "retained", "ab")


def test_splits_are_over_each_role(done):
    rows = done[1]
    assert roles_of(rows, "psr-1", task="*") == {("retained", "*"), ("restored", "*"), ("unseen", "*")}
    row = rows["*", "hider", "psr-1", "restored", "*"]
    both = [rows[t, "hider", "psr-1", "restored", "*"].value for t in ("back", "other")]
    assert row.n_planned == 2 * PROMPTS and row.value == pytest.approx(sum(both) / 2) and row.delta is not None


def test_records_and_comparisons_have_the_roles(done):
    records = [r for r in read_records(done[2]) if r.task == "back"]
    assert {(r.concept, r.role) for r in records} == set(ROLES.items())
    side = read_side(f"{done[2]}:hider")
    lines = [c for c in compare(side, read_side(f"{done[2]}:base"), each_concept=False)[0] if (c.task, c.metric) == ("back", "psr-1")]
    assert {c.role for c in lines} == {"retained", "restored", "unseen"} and all(c.pairs == PROMPTS and c.better == "higher" for c in lines)


def test_roles_of_a_task():
    task = Task.model_validate({"id": "t", "targets": ["a", "b"], "retained": ["c"], "unseen": ["d"], "restored": ["b"], "prompts": {"set": "p"}})
    assert groups.row_roles(task) == {"a": "target", "b": "restored", "c": "retained", "d": "unseen"}
    assert {r: groups.asked_role(r) for r in groups.ROLES} == {"target": "target", **dict.fromkeys(("retained", "restored", "unseen"), "retained")}


def test_the_page_tells_them_apart(done):
    document = json.loads((done[2] / "results.json").read_text())
    assert {r["role"] for r in document["canonical"]["rows"]} == {*groups.ROLES, "model"}
    page = report_from_results(done[2], done[3]).read_text()
    section = page[page.index('<section id="task-2">') :]
    assert "other: erase ab, ef" in section and "Erased together." in section
    assert "Brought back before anything is measured: ab, by an artefact of the same norm drawn at random." in section
    assert "Kept: gh." in section and "Unseen, because no eraser is told of it: ij." in section
    assert "<figcaption>restored</figcaption>" in section and "<figcaption>unseen</figcaption>" in section
    assert '<span class="badge restored">restored</span>' in section and "psr-1 on unseen concepts" in section
    matrix = page[page.index('<section id="matrix">') : page.index('<section id="task-1">')]
    assert [f">{label}</th>" in matrix for label in ("back", "other", "ab + ef")] == [True] * 3 and ", n 4, psr-1, restored" in matrix
