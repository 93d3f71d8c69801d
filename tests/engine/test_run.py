from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from running import ESD, carry_out, image_bytes
from world import PROMPTS, ColourJudge, write_suite

from conceptbench.core.errors import BaseChangedError, StoreError, UserInputError
from conceptbench.core.registry import ERASERS
from conceptbench.engine.images import BASE
from conceptbench.engine.preview import preview
from conceptbench.engine.provenance import canonical, write_results
from conceptbench.engine.report import report_from_results
from conceptbench.engine.store import Store


@pytest.fixture
def suite(tmp_path):
    return write_suite(tmp_path / "suite")


def test_rows_cover_base_and_line_up(suite, folders, tmp_path):
    outcome, _ = carry_out(suite, folders, tmp_path / "store")
    assert not outcome.failures
    assert {(r.task, r.eraser) for r in outcome.rows} == {(t, e) for t in ("one", "two") for e in ("base", "negative-prompt", "uce")}
    overall = {(r.task, r.eraser, r.metric, r.role): r for r in outcome.rows if r.concept == "*"}
    row = overall["two", "uce", "psr-1", "retained"]
    assert (row.n_planned, row.n_scored, row.n_failed, row.clusters) == (2 * PROMPTS, 2 * PROMPTS, 0, 2 * PROMPTS)
    assert row.protocol == "psr-1@top1-of-4way/colour" and row.status == "ok" and row.ci_low <= row.value <= row.ci_high
    assert row.base_value == overall["two", "base", "psr-1", "retained"].value and row.delta == pytest.approx(row.value - row.base_value)
    assert overall["one", "base", "esr-1", "target"].delta is None
    assert {r.concept for r in outcome.rows if r.task == "two" and r.metric == "psr-1"} == {"*", "ab", "gh"}


def test_work_is_done_once(suite, folders, tmp_path):
    store = tmp_path / "store"
    first, _ = carry_out(suite, folders, store, ["negative-prompt"])
    # three concepts' images of the base, shared by both tasks; then two and three concepts' for the eraser
    assert first.work.images == 3 * PROMPTS + 2 * PROMPTS + 3 * PROMPTS
    ColourJudge.looked = 0
    again, _ = carry_out(suite, folders, store, ["negative-prompt"])
    assert (again.work.images, again.work.erasures, ColourJudge.looked) == (0, 0, 0)
    assert canonical(again.rows) == canonical(first.rows)
    more, _ = carry_out(suite, folders, store, ["negative-prompt", "uce"])
    assert more.work.erasures == 2 and more.work.images == 2 * PROMPTS + 3 * PROMPTS  # no base image again


def test_changing_one_prompt_recomputes_only_what_depends_on_it(suite, folders, tmp_path):
    store = tmp_path / "store"
    carry_out(suite, folders, store, ["uce"])
    before = set(image_bytes(store))
    text = (suite.parent / "prompts.csv").read_text().replace("ab-h1,ab b,", "ab-h1,ab z,")
    (suite.parent / "prompts.csv").write_text(text)
    ColourJudge.looked = 0
    outcome, _ = carry_out(suite, folders, store, ["uce"])
    # the prompt is in both tasks: one image of the base, one of each task's erasure
    assert (outcome.work.images, outcome.work.erasures, ColourJudge.looked) == (3, 0, 3)
    assert before < set(image_bytes(store)) and len(image_bytes(store)) == len(before) + 3


def test_changing_an_anchor_makes_the_erasure_again(suite, folders, tmp_path):
    store = tmp_path / "store"
    carry_out(suite, folders, store, ["uce:mini"])
    manifest = suite.parent / "concepts.yaml"
    manifest.write_text(manifest.read_text().replace("anchor: cd", "anchor: zz"))
    outcome, _ = carry_out(suite, folders, store, ["uce:mini"])
    # task one's target has another anchor; task two keeps that concept, and its images stay
    assert outcome.work.erasures == 2 and outcome.work.images == 2 * PROMPTS


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_same_bytes_in_any_batch_size_and_twice(suite, folders, tmp_path, batch):
    first, _ = carry_out(suite, folders, tmp_path / "a", [ESD], batch=16)
    second, _ = carry_out(suite, folders, tmp_path / "b", [ESD], batch=batch)
    assert image_bytes(tmp_path / "a") == image_bytes(tmp_path / "b")
    assert canonical(first.rows) == canonical(second.rows)


def test_half_done_goes_on_to_the_same_bytes(suite, folders, tmp_path):
    whole, _ = carry_out(suite, folders, tmp_path / "a", batch=4)
    carry_out(suite, folders, tmp_path / "b", batch=4)
    images = sorted((tmp_path / "b" / "images").rglob("*.png"))
    for path in images[::3]:
        path.unlink()
    again, _ = carry_out(suite, folders, tmp_path / "b", batch=4)
    assert again.work.images == len(images[::3])
    assert image_bytes(tmp_path / "a") == image_bytes(tmp_path / "b") and canonical(whole.rows) == canonical(again.rows)


@pytest.mark.parametrize("damage", ["truncated", "pixels", "foreign"])
def test_a_damaged_image_is_named_and_made_again(suite, folders, tmp_path, damage):
    store = tmp_path / "store"
    carry_out(suite, folders, store, [])
    shutil.copytree(store, tmp_path / "whole")
    path = sorted((store / "images").rglob("*.png"))[0]
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:50])
    elif damage == "foreign":
        Image.new("RGB", (16, 16)).save(path)
    else:
        other = sorted((store / "images").rglob("*.png"))[1]
        path.write_bytes(other.read_bytes())
    before = image_bytes(tmp_path / "whole")
    with pytest.raises(StoreError, match=path.name):
        Store(store).read_image(path.stem)
    shutil.rmtree(store / "judged")
    again, _ = carry_out(suite, folders, store, [])
    assert again.work.images == 1 and image_bytes(store) == before  # the same bytes


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_erasure_is_made_again(suite, folders, tmp_path, damage):
    store = tmp_path / "store"
    first, _ = carry_out(suite, folders, store, ["uce"])
    path = next((store / "erasures").iterdir())
    data = bytearray(path.read_bytes())
    data[-1] ^= 255
    path.write_bytes(bytes(data[:60] if damage == "truncated" else data))
    again, _ = carry_out(suite, folders, store, ["uce"])
    assert again.work.erasures == 1 and again.erasures == first.erasures and canonical(again.rows) == canonical(first.rows)


@pytest.mark.parametrize("ending", ["return Erasure()", "raise ValueError('half way')"])
def test_an_eraser_that_changes_the_base_stops_the_run(suite, folders, tmp_path, ending):
    plugin, name = tmp_path / "greedy.py", f"greedy-{ending[:5]}"
    plugin.write_text(
        "from conceptbench.models.eraser import Eraser\nfrom conceptbench.models.erasure import Erasure\n"
        f"class Greedy(Eraser):\n    name = '{name}'\n    def erase(self, base, request, config, ctx):\n        next(base.unet.parameters()).data.add_(1)\n        {ending}\n"
    )
    with pytest.raises(BaseChangedError, match=f"{name} left unet of the base changed"):
        carry_out(suite, folders, tmp_path / "store", [str(plugin)])


def test_wrong_shapes_fail_the_unit_and_not_the_run(suite, folders, tmp_path):
    plugin = tmp_path / "shape.py"
    plugin.write_text(
        "import torch\nfrom conceptbench.models.eraser import Eraser\nfrom conceptbench.models.erasure import Change, Erasure\n"
        "class Shape(Eraser):\n    name = 'shape'\n    def erase(self, base, request, config, ctx):\n"
        "        return Erasure([Change('unet', 'replacement', {next(iter(base.parameters('kv'))): torch.ones(2, 2)})])\n"
    )
    outcome, _ = carry_out(suite, folders, tmp_path / "store", [str(plugin)])
    assert len(outcome.failures) == 2 and "does not fit its shape" in outcome.failures[0]["reason"]


def test_two_presets_of_one_eraser_stay_apart(suite, folders, tmp_path):
    outcome, runner = carry_out(suite, folders, tmp_path / "store", ["uce:paper", "uce:released"])
    write_results(outcome, runner.measures.judges, tmp_path / "out", Store(tmp_path / "store"), [])
    page = report_from_results(tmp_path / "out").read_text()
    assert ">uce:paper</text>" in page and ">uce:released</text>" in page


def test_a_damaged_judgement_counts_as_not_there(suite, folders, tmp_path):
    store = tmp_path / "store"
    first, _ = carry_out(suite, folders, store, [])
    shard = next((store / "judged").rglob("*.npz"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    again, _ = carry_out(suite, folders, store, [])
    assert sum(again.work.judged.values()) > 0 and canonical(again.rows) == canonical(first.rows)


def test_a_plugin_that_raises_is_a_failed_unit_and_the_rest_goes_on(suite, folders, tmp_path):
    plugin = tmp_path / "bad.py"
    plugin.write_text(
        "from conceptbench.models.eraser import Eraser\n"
        "class Bad(Eraser):\n    name = 'bad'\n    summary = 'raises'\n    def erase(self, base, request, config, ctx):\n        raise KeyError('oops')\n"
    )
    outcome, _ = carry_out(suite, folders, tmp_path / "store", [str(plugin), "uce"])
    assert [(f["eraser"], f["task"]) for f in outcome.failures] == [("bad:default", "one"), ("bad:default", "two")]
    assert "KeyError('oops')" in outcome.failures[0]["reason"]
    failed = [r for r in outcome.rows if r.eraser == "bad"]
    assert failed and all(r.status == "failed" and r.value is None and r.n_failed == r.n_planned and "oops" in r.reason for r in failed)
    assert {r.status for r in outcome.rows if r.eraser == "uce"} == {"ok"}


def test_an_eraser_that_yields_nan_fails(suite, folders, tmp_path):
    plugin = tmp_path / "nan.py"
    plugin.write_text(
        "import torch\nfrom conceptbench.models.eraser import Eraser\nfrom conceptbench.models.erasure import Change, Erasure\n"
        "class Nan(Eraser):\n    name = 'nan'\n    summary = 'nan'\n    def erase(self, base, request, config, ctx):\n"
        "        n, p = next(iter(base.parameters('kv').items()))\n        return Erasure([Change('unet', 'additive', {n: torch.full_like(p, float('nan'))})])\n"
    )
    outcome, _ = carry_out(suite, folders, tmp_path / "store", [str(plugin)])
    assert len(outcome.failures) == 2 and "is not finite" in outcome.failures[0]["reason"]


def test_an_edited_plugin_never_sees_old_images(suite, folders, tmp_path):
    plugin = tmp_path / "mine.py"
    source = (
        "from conceptbench.models.eraser import Eraser\nfrom conceptbench.models.erasure import Erasure, RuntimeSpec\n"
        "class Mine(Eraser):\n    name = '{name}'\n    summary = 's'\n    def erase(self, base, request, config, ctx):\n"
        "        return Erasure(runtime=RuntimeSpec('negative-prompt', {{'text': '{text}'}}))\n"
    )
    plugin.write_text(source.format(name="mine", text="ab"))
    one, _ = carry_out(suite, folders, tmp_path / "store", [str(plugin)])
    plugin.write_text(source.format(name="mine", text="zz"))
    two, _ = carry_out(suite, folders, tmp_path / "store", [str(plugin)])
    assert one.erasures != two.erasures and two.work.erasures == 2
    assert "mine" in ERASERS.names()


def test_limit_marks_the_run(suite, folders, tmp_path):
    outcome, _ = carry_out(suite, folders, tmp_path / "store", [], limit=2)
    assert {r.status for r in outcome.rows} == {"limited"} and max(r.n_planned for r in outcome.rows) == 4


def test_development_is_marked(suite, folders, tmp_path):
    outcome, _ = carry_out(suite, folders, tmp_path / "store", [], split="development")
    assert {r.status for r in outcome.rows} == {"development"}


def test_development_split_shares_no_prompt_or_seed(suite, folders, tmp_path):
    _, held = carry_out(suite, folders, tmp_path / "store", [])
    _, dev = carry_out(suite, folders, tmp_path / "store", [], split="development")
    a, b = ([s for specs in r.plan.images.values() for s in specs] for r in (held, dev))
    assert a and b and not {s.seed for s in a} & {s.seed for s in b} and not {s.condition for s in a} & {s.condition for s in b}
    assert all(s.seed % 2 == 0 for s in a) and all(s.seed % 2 == 1 for s in b)


def test_preview_counts(suite, folders, tmp_path):
    store = tmp_path / "store"
    _, runner = carry_out(suite, folders, tmp_path / "other", [ESD])
    fresh = preview(runner.plan, Store(store), runner.base)
    assert (fresh.erasures, fresh.erasures_cached, fresh.images, fresh.images_cached, fresh.measured) == (2, 0, 32, 0, False)
    assert 0 < fresh.seconds < 600 and "by a short trial" in fresh.lines()[-1]
    done = preview(runner.plan, Store(tmp_path / "other"), runner.base)
    assert (done.erasures_cached, done.images, done.images_cached) == (2, 32, 32)


def test_files_and_report(suite, folders, tmp_path):
    outcome, runner = carry_out(suite, folders, tmp_path / "store")
    write_results(outcome, runner.measures.judges, tmp_path / "out", Store(tmp_path / "store"), ["conceptbench", "run"])
    with (tmp_path / "out" / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(outcome.rows) and float(rows[0]["value"]) == pytest.approx(outcome.rows[0].value)
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert document["canonical"]["rows"] == json.loads(json.dumps(canonical(outcome.rows)))
    page = report_from_results(tmp_path / "out", Store(tmp_path / "store")).read_text()
    assert page.count("data:image/png;base64,") >= (2 + 3) * 3 and "<script" not in page and "http-equiv" in page
    with pytest.raises(UserInputError, match="no readable results"):
        report_from_results(tmp_path / "nowhere", Store(tmp_path / "store"))


def test_everything_in_the_report_is_escaped(folders, tmp_path):
    hostile = "<img src=x onerror=alert(1)>"
    suite = write_suite(tmp_path / "suite", title=hostile)
    outcome, runner = carry_out(suite, folders, tmp_path / "store", ["negative-prompt"])
    write_results(outcome, runner.measures.judges, tmp_path / "out", Store(tmp_path / "store"), [])
    page = report_from_results(tmp_path / "out", Store(tmp_path / "store")).read_text()
    assert hostile not in page and "&lt;img src=x" in page


def test_images_of_the_base_do_not_depend_on_the_line_up(suite, folders, tmp_path):
    _, runner = carry_out(suite, folders, tmp_path / "a", [])
    carry_out(suite, folders, tmp_path / "b", ["uce", ESD])
    for spec in runner.plan.distinct_base_images():
        key = spec.key(runner.plan.info, BASE)
        assert np.array_equal(Store(tmp_path / "a").read_image(key), Store(tmp_path / "b").read_image(key))
