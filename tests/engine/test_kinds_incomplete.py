"""What every kind of metric says when something failed, is missing or is not the whole."""

from __future__ import annotations

import json

import pytest
from kinds import WeightProbe, by_place, suite_with
from running import ESD, carry_out, runner_of
from world import PROMPTS

from conceptbench.core.errors import PluginError
from conceptbench.engine.provenance import write_results
from conceptbench.engine.report import report_from_results

BAD = "bad-eraser"


def bad_eraser():
    """A line-up entry whose erasure fails."""
    from dataclasses import replace

    from running import entry

    from conceptbench.models.eraser import Eraser, EraserConfig

    class Bad(Eraser):
        name = BAD
        Config = EraserConfig

        def erase(self, base, request, config, ctx):
            raise ValueError("cannot")

    return replace(entry("uce"), label=BAD, eraser=Bad, config=EraserConfig())


def test_a_failed_erasure_has_rows_of_every_kind(tmp_path, folders):
    far = {"metric": "far", "judge": "colour", "options": {"beside": "grey", "n": 4}}
    suite = suite_with(tmp_path, {"metric": "weight_probe"}, {"metric": "gap"}, far, splits=["one", "two"])
    outcome, _ = carry_out(suite, folders, tmp_path / "store", [bad_eraser()])
    rows = {k: r for k, r in by_place(outcome.rows).items() if k[1] == BAD}
    kinds = {"esr-1", "far-grey", "weight_probe", "weight_probe-twice", "gap", "weight_change-l1-changed", "lpips"}
    assert kinds <= {k[2] for k in rows} and {r.status for r in rows.values()} == {"failed"}
    assert all(r.value is None and "cannot" in r.reason for r in rows.values())
    assert rows["one", BAD, "weight_probe", "target", "ab"].base_value == pytest.approx(0.5)
    assert ("*", BAD, "esr-1", "target", "*") in rows


def test_a_probe_that_fails_is_a_unit_of_its_own(tmp_path, folders, monkeypatch):
    suite = suite_with(tmp_path, {"metric": "weight_probe"})
    honest = WeightProbe.measure

    def fails(self, base, request, prepared):
        if request.concept.name == "ef" and self._sum(base) != prepared["sum"][0]:
            raise KeyError("no such site")
        return honest(self, base, request, prepared)

    monkeypatch.setattr(WeightProbe, "measure", fails)
    outcome, _ = carry_out(suite, folders, tmp_path / "store", [ESD])
    rows = by_place(outcome.rows)
    assert [f["reason"] for f in outcome.failures] == ["weight_probe of ef: KeyError('no such site')"] * 2
    whole, lost = rows["one", "esd-x", "weight_probe", "retained", "*"], rows["one", "esd-x", "weight_probe", "retained", "ef"]
    assert lost.value is None and lost.reason == "not probed: ef" and lost.status == whole.status == "partial"
    assert rows["one", "esd-x", "weight_probe", "target", "ab"].status == "ok"
    assert rows["one", "esd-x", "esr-1", "target", "*"].n_scored == PROMPTS  # images go on


def test_a_probe_that_breaks_its_contract_is_told(tmp_path, folders, monkeypatch):
    from conceptbench.models.probe import Probed

    for wrong, text in (({"": [1.0]}, "parts"), ({"": [1.0], "twice": [1.0, 2.0]}, "'twice' has (2,)")):
        monkeypatch.setattr(WeightProbe, "measure", lambda *_, w=wrong: Probed(w, ["0"]))
        outcome, _ = carry_out(suite_with(tmp_path, {"metric": "weight_probe"}), folders, tmp_path / "store", [])
        assert outcome.failures and all(text in f["reason"] for f in outcome.failures)
    assert issubclass(PluginError, Exception)


def test_precision_is_part_of_a_finding(tmp_path, folders):
    from dataclasses import replace

    runner = runner_of(suite_with(tmp_path, {"metric": "weight_probe"}), folders["sd1"], tmp_path / "store", [])
    probe, request = runner.probing.asked(runner.plan.suite.tasks[0])[0]
    keys = {runner.probing.key(probe, request, "base")}
    runner.base.info = replace(runner.base.info, precision="bf16")
    assert runner.probing.key(probe, request, "base") not in keys


def test_an_incomplete_reference_is_partial(tmp_path, folders):
    far = {"metric": "far", "judge": "colour", "options": {"beside": "others"}}
    suite = suite_with(tmp_path, far)
    runner = runner_of(suite, folders["sd1"], tmp_path / "store", [])
    runner.run()
    task = runner.plan.suite.tasks[1]
    scores = runner.task_scores(task, list(runner.plan.images["two"]))
    base = runner.base_model(task)
    gone = {s.key(runner.plan.info, "base") for s in scores.specs if s.concept == "gh"}
    base.heard["colour"] = {k: v for k, v in base.heard["colour"].items() if k not in gone}
    rows = {(r.role, r.concept): r for r in scores.score(base, is_base=True)[0] if r.metric == "far-others"}
    assert {k: r.status for k, r in rows.items()} == {("target", "ef"): "partial", ("retained", "ab"): "partial", ("retained", "gh"): "partial"}


def test_a_limited_metric_still_has_all_others(tmp_path, folders):
    far = {"metric": "far", "judge": "colour", "options": {"beside": "others"}}
    every = by_place(carry_out(suite_with(tmp_path, far), folders, tmp_path / "store", [])[0].rows)
    one = by_place(carry_out(suite_with(tmp_path, {**far, "concepts": ["ef"]}), folders, tmp_path / "store", [])[0].rows)
    assert {k for k in one if k[2] == "far-others"} == {("one", "base", "far-others", "retained", "ef"), ("two", "base", "far-others", "target", "ef")}
    place = ("two", "base", "far-others", "target", "ef")
    assert one[place].value == every[place].value is not None


def test_derived_protocols_name_their_sources_whatever_is_there(tmp_path, folders):
    outcome, _ = carry_out(suite_with(tmp_path, {"metric": "gap"}), folders, tmp_path / "store", ["uce"])
    assert {r.protocol for r in outcome.rows if r.metric == "gap"} == {"gap@difference/top1-of-4way:colour"}
    assert all(r.base_value is not None for r in outcome.rows if r.metric == "gap")


def test_the_floor_keeps_a_rows_own_guidance(tmp_path, folders):
    suite = suite_with(tmp_path, floor={"scheduler": "euler", "steps": 3, "guidance": 3.0})
    prompts = suite.parent / "prompts.csv"
    lines = prompts.read_text().splitlines()
    prompts.write_text("\n".join([lines[0] + ",guidance", *(line + (",9.0" if line.startswith("ab-h0") else ",") for line in lines[1:])]) + "\n")
    runner = runner_of(suite, folders["sd1"], tmp_path / "store", [])
    specs = list(runner.plan.images["one"])
    runner.run()
    from dataclasses import replace

    own = next(s for s in specs if s.sampler.guidance == 9.0)
    floor = runner.plan.suite.floor
    assert runner.store.has_image(replace(own, sampler=floor.model_copy(update={"guidance": 9.0})).key(runner.plan.info, "base"))
    assert not runner.store.has_image(replace(own, sampler=floor).key(runner.plan.info, "base"))


def test_the_page_shows_splits_and_what_probes_found(tmp_path, folders):
    suite = suite_with(tmp_path, {"metric": "weight_probe"}, splits=["one", "two"])
    outcome, runner = carry_out(suite, folders, tmp_path / "store", [ESD])
    write_results(outcome, runner.measures.judges, tmp_path / "out", runner.store)
    html = report_from_results(tmp_path / "out").read_text()
    assert "Over the splits one, two" in html and "over 2 tasks" in html and "over draws" in html
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {f["probe"] for f in document["findings"]} == {"weight_probe@sum"} and len(document["findings"]) == 2 * 2 * 2
