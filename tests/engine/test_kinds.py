"""Every kind of metric through a whole run on random weights: sets, references, probes, derived ones, splits, the sampler floor, watching."""

from __future__ import annotations

import json

import numpy as np
import pytest
from kinds import WeightProbe, by_place, suite_with
from running import ESD, carry_out, entry, runner_of
from world import PROMPTS, DistanceJudge, LengthJudge

from conceptbench.core.errors import NotComparableError, UserInputError
from conceptbench.core.files import write_text
from conceptbench.core.results import Difference, Estimate
from conceptbench.engine.measures import load_measures
from conceptbench.engine.preview import preview
from conceptbench.engine.provenance import canonical
from conceptbench.engine.records import read_records
from conceptbench.engine.store import Store
from conceptbench.engine.timing import read_rates, record_rates


def test_sets_beside_base_others_and_reference(tmp_path, folders):
    far = {"metric": "far", "judge": "colour"}
    asked = [far, {**far, "options": {"beside": "others"}}, {**far, "options": {"beside": "grey", "n": 6}}]
    outcome, runner = carry_out(suite_with(tmp_path, *asked), folders, tmp_path / "store", [ESD])
    rows = by_place(outcome.rows)
    assert not [k for k in rows if k[1] == "base" and k[2] == "far-base"]  # the base beside itself
    row = rows["two", "esd-x", "far-base", "retained", "*"]
    assert row.value > 0 and (row.n_planned, row.n_scored, row.clusters) == (2 * PROMPTS,) * 3 and row.base_value is None and row.delta is None
    assert {k[4] for k in rows if k[:4] == ("two", "esd-x", "far-grey", "retained")} == {"*", "ab", "gh"}
    grey_row = rows["one", "esd-x", "far-grey", "target", "*"]
    assert grey_row.delta == pytest.approx(grey_row.value - rows["one", "base", "far-grey", "target", "*"].value)
    others = {k[3:]: r for k, r in rows.items() if k[:3] == ("two", "base", "far-others")}
    assert set(others) == {("target", "ef"), ("retained", "ab"), ("retained", "gh")}  # nothing is beside everything
    heard = {s.concept: [] for s in runner.plan.images["two"]}
    said = runner.store.read_judged(_colour_key(runner), "base")
    for spec in runner.plan.images["two"]:
        heard[spec.concept].append(said[spec.key(runner.plan.info, "base")]["subject"][:3])
    want = np.linalg.norm(np.mean(heard["gh"], 0) - np.mean(heard["ab"] + heard["ef"], 0))
    assert others["retained", "gh"].value == pytest.approx(want, rel=1e-5)


def _colour_key(runner):
    from conceptbench.engine.judging import judge_key

    return judge_key(runner.measures.judges["colour"].card)


def test_values_of_single_images_of_a_set_are_in_the_records(tmp_path, folders):
    from conceptbench.engine.provenance import write_results

    suite = suite_with(tmp_path, {"metric": "far", "judge": "colour", "options": {"beside": "grey", "n": 6}})
    outcome, runner = carry_out(suite, folders, tmp_path / "store", ["uce"])
    write_results(outcome, runner.measures.judges, tmp_path / "out", runner.store)
    records = [r for r in read_records(tmp_path / "out") if r.eraser == "uce"]
    assert records and all(r.values["far-grey@mean/colour"] > 0 for r in records)


def test_a_reference_that_is_none(tmp_path, folders):
    far = {"metric": "far", "judge": "colour"}
    for options, text in (
        ({"beside": "gray", "n": 3}, "did you mean 'grey'"),
        ({"beside": "grey"}, "option n"),
        ({"beside": str(tmp_path / "empty")}, "no images"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(UserInputError, match=text):
            runner_of(suite_with(tmp_path, {**far, "options": options}), folders["sd1"], tmp_path / "store", [])  # before anything is drawn


def test_a_folder_is_a_reference(tmp_path, folders):
    from PIL import Image

    real = tmp_path / "real"
    real.mkdir()
    for i, level in enumerate((0, 100, 200)):
        Image.new("RGB", (8 + i // 2, 8), (level, level, level)).save(real / f"{i}.png")
    suite = suite_with(tmp_path, {"metric": "far", "judge": "colour", "options": {"beside": str(real)}})
    first, _ = carry_out(suite, folders, tmp_path / "store", [])
    Image.new("RGB", (8, 8), (255, 255, 255)).save(real / "0.png")  # another file, another reference
    second, _ = carry_out(suite, folders, tmp_path / "store", [])
    values = [next(r.value for r in o.rows if r.metric.startswith("far-")) for o in (first, second)]
    assert values[0] != values[1]


def test_images_that_do_not_count(tmp_path, folders):
    suite = suite_with(tmp_path, {"metric": "brightness", "judge": "colour", "options": {"least": 0.0}})
    outcome, runner = carry_out(suite, folders, tmp_path / "store", [])
    said = runner.store.read_judged(_colour_key(runner), "base")
    values = sorted(float(said[s.key(runner.plan.info, "base")]["subject"][0]) for s in runner.plan.images["one"] if s.role == "target")
    suite = suite_with(tmp_path, {"metric": "brightness", "judge": "colour", "options": {"least": values[1]}})
    outcome, _ = carry_out(suite, folders, tmp_path / "store", [])
    row = by_place(outcome.rows)["one", "base", "brightness", "target", "*"]
    assert (row.n_planned, row.n_scored, row.n_failed) == (PROMPTS, PROMPTS - 2, 0) and row.status == "ok"
    assert row.value == pytest.approx(np.mean(values[2:])) and row.reason == f"2 of {PROMPTS} images do not count"
    assert row.spread == pytest.approx(np.std(values[2:])) and row.spread_kind == "images"
    suite = suite_with(tmp_path, {"metric": "brightness", "judge": "colour", "options": {"least": 2.0}})
    row = by_place(carry_out(suite, folders, tmp_path / "store", [])[0].rows)["one", "base", "brightness", "target", "*"]
    assert row.value is None and "no image was scored" in row.reason and row.status == "ok"


def test_a_total_is_the_sum_over_images(tmp_path, folders):
    suite = suite_with(tmp_path, {"metric": "brightness", "judge": "colour"})
    mean = by_place(carry_out(suite, folders, tmp_path / "store", [ESD])[0].rows)
    suite = suite_with(tmp_path, {"metric": "brightness", "judge": "colour", "options": {"total": True}})
    total = by_place(carry_out(suite, folders, tmp_path / "store", [ESD])[0].rows)
    place = ("one", "esd-x", "brightness", "target", "*")
    for name in ("value", "ci_high", "base_value", "delta", "delta_low", "delta_high"):
        assert getattr(total[place], name) == pytest.approx(PROMPTS * getattr(mean[place], name)), name
    assert total[place].ci_low == pytest.approx(max(0, PROMPTS * mean[place].ci_low))


def test_a_total_of_equal_counts_has_an_interval():
    from conceptbench.core.statistics import wilson
    from conceptbench.engine.scoring import summed

    none = summed(Estimate.of([0.0] * 20, [str(i) for i in range(20)], planned=20, rate=False, unit="detections", better="lower"))
    assert (none.value, none.low) == (0, 0) and none.high == pytest.approx(20 * wilson(0, 20)[1])


def test_probes_are_made_once_and_compared_with_the_base(tmp_path, folders):
    suite = suite_with(tmp_path, {"metric": "weight_probe"})
    WeightProbe.measured.clear()
    outcome, _ = carry_out(suite, folders, tmp_path / "store", [ESD])
    assert not outcome.failures and sorted(set(WeightProbe.measured)) == ["ab", "ef"] and len(WeightProbe.measured) == 2 * 2 * 2
    rows = by_place(outcome.rows)
    assert rows["one", "base", "weight_probe", "target", "ab"].value == pytest.approx(0.5)
    row = rows["one", "esd-x", "weight_probe", "target", "ab"]
    # two draws, v and v + 1: their mean, their spread, and a difference to the base that is v for both
    assert row.value == pytest.approx(row.delta + 0.5) and row.delta != 0 and row.delta_low == pytest.approx(row.delta, abs=1e-4)
    assert (row.n_scored, row.spread, row.spread_kind) == (2, pytest.approx(0.5), "draws") and row.better == "lower"
    twice = rows["one", "esd-x", "weight_probe-twice", "target", "ab"]
    assert (twice.n_planned, twice.n_scored, twice.n_failed, twice.unit, twice.better) == (2, 1, 1, "weight", "neither")
    assert twice.protocol == "weight_probe-twice@sum" and twice.status == "ok"  # all units were asked; one has no value
    assert not [k for k in rows if k[2] == "weight_probe" and k[4] == "gh"]
    again, _ = carry_out(suite, folders, tmp_path / "store", [ESD])
    assert len(WeightProbe.measured) == 8 and canonical(again.rows) == canonical(outcome.rows)
    path = next((tmp_path / "store" / "probes").glob("*"))
    path.write_bytes(path.read_bytes()[:-4])  # a damaged finding is made again
    repaired, _ = carry_out(suite, folders, tmp_path / "store", [ESD])
    assert len(WeightProbe.measured) == 9 and canonical(repaired.rows) == canonical(outcome.rows)


def test_a_plan_counts_probes_and_knows_how_long_they_took(tmp_path, folders):
    suite = suite_with(tmp_path, {"metric": "weight_probe"})
    _, runner = carry_out(suite, folders, tmp_path / "store", [ESD])
    path = next((tmp_path / "store" / "probes").glob("*"))
    path.unlink()
    new, some = (preview(runner.plan, store, runner.base) for store in (Store(tmp_path / "new"), runner.store))
    assert (new.probes, new.probes_cached) == (8, 0) and "probes:   8 to make, 0 in the store" in new.lines()
    assert (some.probes, some.probes_cached) == (8, 7)
    record_rates(runner.store, runner.plan, runner.outcome, runner.session, runner.base.device)
    rates = {n: 1e6 if n.startswith("probe/") else s for n, s in read_rates(runner.store).items()}
    write_text(runner.store.root / "rates.json", json.dumps(rates))
    assert preview(runner.plan, runner.store, runner.base).seconds == pytest.approx(1e6, rel=1e-2)


def test_collecting_probes_nothing(tmp_path, folders):
    suite = suite_with(tmp_path, {"metric": "weight_probe"})
    WeightProbe.measured.clear()
    outcome = runner_of(suite, folders["sd1"], tmp_path / "store", [], collect=True).run()
    rows = [r for r in outcome.rows if r.metric == "weight_probe"]
    assert not WeightProbe.measured and {(r.value, r.status) for r in rows} == {(None, "partial")}
    assert rows[0].reason == "not probed: ab" and rows[0].n_planned == 1 and rows[0].n_scored == 0


def test_derived_metrics_and_their_base(tmp_path, folders):
    rows = by_place(carry_out(suite_with(tmp_path, {"metric": "gap"}), folders, tmp_path / "store", ["uce"])[0].rows)
    row = rows["one", "uce", "gap", "model", "*"]
    own = [rows["one", "uce", m, r, "*"].value for m, r in (("esr-1", "target"), ("psr-1", "retained"))]
    assert row.value == pytest.approx(own[0] - own[1])
    assert row.delta == pytest.approx(row.value - rows["one", "base", "gap", "model", "*"].value)
    with pytest.raises(UserInputError, match="did you mean 'esr-1'"):
        carry_out(suite_with(tmp_path, {"metric": "gap", "options": {"one": "esr-2"}}), folders, tmp_path / "store", [])


def test_two_protocols_of_a_headline_are_refused(tmp_path, folders):
    from conceptbench.core.registry import JUDGES

    class Other(type(JUDGES.load("colour")())):
        def __init__(self):
            super().__init__()
            from dataclasses import replace

            self.card = replace(self.card, id="colour-2")

    JUDGES.add("colour-2", Other)
    with pytest.raises(NotComparableError, match=r"esr-1@top1-of-4way/colour, esr-1@top1-of-4way/colour-2") as error:
        carry_out(suite_with(tmp_path, {"metric": "esr", "judge": "colour-2"}), folders, tmp_path / "store", [])
    assert error.value.exit_code == 4


def test_splits_have_a_mean_an_interval_and_a_spread(tmp_path, folders):
    outcome, _ = carry_out(suite_with(tmp_path, splits=["one", "two"]), folders, tmp_path / "store", [ESD])
    rows = by_place(outcome.rows)
    whole, parts = rows["*", "esd-x", "psr-1", "retained", "*"], [rows[t, "esd-x", "psr-1", "retained", "*"] for t in ("one", "two")]
    n = [p.n_scored for p in parts]
    assert whole.value == pytest.approx(np.average([p.value for p in parts], weights=n)) and whole.n_scored == sum(n)
    assert whole.spread == pytest.approx(np.std([p.value for p in parts])) and whole.spread_kind == "2 tasks"
    assert whole.clusters == 3 * PROMPTS and whole.ci_low <= whole.value <= whole.ci_high and whole.delta is not None
    assert rows["*", "base", "psr-1", "retained", "*"].delta is None
    with pytest.raises(UserInputError, match="unknown split"):
        carry_out(suite_with(tmp_path, splits=["one", "tow"]), folders, tmp_path / "store", [])


def test_without_splits_there_is_no_row_over_tasks(tmp_path, folders):
    outcome, _ = carry_out(suite_with(tmp_path), folders, tmp_path / "store", [])
    assert "*" not in {r.task for r in outcome.rows}


def test_the_floor_is_the_base_under_another_sampler(tmp_path, folders):
    suite = suite_with(tmp_path, floor={"scheduler": "euler", "steps": 3, "guidance": 3.0})
    outcome, runner = carry_out(suite, folders, tmp_path / "store", ["uce"])
    rows = by_place(outcome.rows)
    row = rows["one", "base-under-euler-3-3", "lpips", "target", "*"]
    specs = [s for s in runner.plan.images["one"] if s.role == "target"]
    store, judge = runner.store, DistanceJudge()
    floor = runner.plan.suite.floor
    from dataclasses import replace

    other = [store.read_image(replace(s, sampler=floor).key(runner.plan.info, "base")) for s in specs]
    own = [store.read_image(s.key(runner.plan.info, "base")) for s in specs]
    assert row.value == pytest.approx(judge(np.stack(other), np.stack(own))["distance"].mean()) and row.value > 0
    again, _ = carry_out(suite, folders, tmp_path / "store", ["uce"])
    assert again.work.images == 0 and canonical(again.rows) == canonical(outcome.rows)


def test_watching_a_training_adds_to_its_curve_and_not_to_its_weights(tmp_path, folders):
    plain, _ = carry_out(suite_with(tmp_path / "a"), folders, tmp_path / "plain", [ESD])
    watch = {"judge": "length", "every": 2, "images": 1}
    watched, _ = carry_out(suite_with(tmp_path / "b", watch=watch), folders, tmp_path / "watched", [ESD])
    assert watched.erasures == plain.erasures
    curve = watched.curves["esd-x:mini", "one"]
    assert [("cos(c_e, x_e)" in point) for point in curve] == [True, False, True]
    assert set(curve[0]) == {"step", "loss", "gradient_norm", "cos(c_e, x_e)", "cos(c_e, x_n)", "cos(c_n, x_n)"}
    cost = [next(r.network_evaluations for r in o.rows if r.eraser == "esd-x") for o in (plain, watched)]
    assert cost[0] == cost[1]
    with pytest.raises(UserInputError, match="image-text"):
        carry_out(suite_with(tmp_path / "c", watch={"judge": "colour"}), folders, tmp_path / "c", [ESD])


def test_points_of_a_curve_are_rows(tmp_path, folders):
    metric = {"metric": "learning_curve", "judge": "length", "each": {"at": [0, 1]}}
    outcome, _ = carry_out(
        suite_with(tmp_path, metric, watch={"judge": "length", "every": 2, "images": 1}), folders, tmp_path / "store", [ESD, "negative-prompt"]
    )
    looks = [point["cos(c_e, x_e)"] for point in outcome.curves["esd-x:mini", "one"] if "cos(c_e, x_e)" in point]
    rows = by_place(outcome.rows)
    assert [rows["one", "esd-x", f"learning_curve-c_e-x_e-{at}", "model", "*"].value for at in (0, 1)] == [looks[0], looks[-1]]
    untrained = rows["one", "negative-prompt", "learning_curve-c_e-x_e-1", "model", "*"]
    assert untrained.value is None and "nothing of the kind was watched" in untrained.reason and untrained.status == "ok"


def test_another_watching_judge_is_another_erasure(tmp_path, folders, monkeypatch):
    """Its curve is part of the erasure, and would be the old one's."""
    from dataclasses import replace

    from conceptbench.core.errors import MissingWeightsError
    from conceptbench.core.manifests import load_suite
    from conceptbench.core.registry import JUDGES
    from conceptbench.engine import watching
    from conceptbench.engine.plan import make_plan
    from conceptbench.models.families import load_base

    class Missing:
        def __init__(self):
            raise MissingWeightsError("no weights")

    class Newer(LengthJudge):
        def __init__(self):
            super().__init__()
            self.card = replace(self.card, sha256="f" * 64)

    info = load_base(str(folders["sd1"])).info
    watched, plain = (load_suite(str(suite_with(tmp_path / n, **more))) for n, more in (("a", {"watch": {"judge": "length"}}), ("b", {})))

    def keys(suite, kind):
        monkeypatch.setitem(JUDGES._added, "length", kind)
        watching._judge.cache_clear()
        return [u.key for u in make_plan(suite, info, [entry("uce")]).erasures]

    try:
        every = [keys(watched, kind) for kind in (LengthJudge, Newer, Missing)]
        assert keys(watched, LengthJudge) == every[0] and len({k for found in every for k in found}) == 6
        assert keys(plain, LengthJudge) == keys(plain, Missing)  # who does not watch needs no judge
    finally:
        watching._judge.cache_clear()


def test_each_makes_a_metric_of_every_combination(tmp_path, folders):
    from conceptbench.core.manifests import load_suite

    suite = suite_with(tmp_path, {"metric": "psr", "judge": "colour", "each": {"k": [2, 3]}})
    assert [m.metric.id for m in load_measures(load_suite(str(suite))).images if m.metric.name == "psr"] == ["psr-1", "psr-2", "psr-3"]


def test_difference_of_nothing_is_nothing():
    assert Difference.of([None], [1.0], ["a"], rate=False).value is None
