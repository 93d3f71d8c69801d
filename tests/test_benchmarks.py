"""The benchmarks' own code, at tiny settings: their figures are checked against known times, counts and gradients."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks import erasers, esd, judging, leaderboard, matmul, measuring, overhead, plan, run, sampling
from benchmarks.measuring import ForwardClock, Row, Settings, alternate, planned
from torch import nn
from world import write_suite

from conceptbench.core.errors import UserInputError
from conceptbench.core.manifests import load_concepts, load_prompts, load_suite, task_concepts
from conceptbench.core.schemas import Concept, Sampler
from conceptbench.erasers.esd import ESDConfig, esd_target
from conceptbench.models.eraser import EraseRequest
from conceptbench.models.families import load_base, load_pipeline
from conceptbench.models.groups import select


@pytest.fixture
def settings(tmp_path, folders):
    load_concepts.cache_clear()
    load_prompts.cache_clear()
    suite = write_suite(tmp_path / "suite")
    return Settings(base=str(folders["sd1"]), suite=str(suite), threads=1, rounds=1, images=5, limit=2, steps=2, task="one")


def by_name(rows):
    return {r.name: r for r in rows}


# -- measuring -------------------------------------------------------------------------------------------------------
def test_a_bound_has_a_direction():
    assert Row("a", "", "", 3.5, "x", ("at least", 3.5)).met is True and Row("a", "", "", 3.4, "x", ("at least", 3.5)).met is False
    assert Row("a", "", "", 0.1, "%", ("at most", 0.1)).met is True and Row("a", "", "", 0.2, "%", ("at most", 0.1)).met is False
    assert Row("a", "", "", 1.0, "s").met is None


def test_rounds_alternate_and_ratios_are_of_neighbours(settings):
    order = []
    times = alternate(lambda i: order.append(f"ours {i}") or 1.0, lambda i: order.append(f"baseline {i}") or 2.0, 2)
    assert order == ["ours 0", "baseline 0", "ours 1", "baseline 1"] and times == [(1.0, 2.0)] * 2
    spec = planned(settings)[1].distinct_base_images()[0]
    row = sampling.rows([(1.0, 4.0), (2.0, 6.0), (1.0, 5.0)], 10, 1, 0.5, spec)[0]  # the machine was slow in the second round
    assert (row.value, row.spread) == (4.0, (3.0, 5.0)) and (row.ours, row.baseline) == ("10.00 img/s", "2.00 img/s") and row.met


class Sleeper(nn.Module):
    """Takes a time of its own, and its child's."""

    def __init__(self, now, seconds, child=None):
        super().__init__()
        self.now, self.seconds, self.child = now, seconds, child

    def forward(self, fail=False):
        self.now[0] += self.seconds
        if self.child is not None:
            self.child(fail)
        if fail and self.child is None:
            raise ValueError("broken")


def test_nested_forwards_count_once_and_failed_ones_end(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now[0])
    outer = Sleeper(now, 1.0, Sleeper(now, 2.0))
    clock = ForwardClock()
    overhead.watch_parts(clock, "network", outer)
    outer()
    outer.child()
    now[0] += 100  # outside
    with pytest.raises(ValueError, match="broken"):
        outer(True)
    outer()
    assert clock.seconds == {"network": 3 + 2 + 3 + 3} and clock.calls["network"] == [3, 2, 3, 3]
    clock.close()
    outer()
    assert clock.total == 11


# -- sampling --------------------------------------------------------------------------------------------------------
def test_sampling_draws_the_same_images_on_both_sides(settings, tmp_path):
    rows = by_name(sampling.run(settings))
    assert rows["sampling"].value > 0 and rows["sampling: same images"].met
    base, made = planned(settings)
    specs = measuring.spaced(made.distinct_base_images(), 4)
    assert len({s.concept for s in specs}) == 3  # evenly over all concepts
    sampling.draw_ours(base, specs, tmp_path / "ours")
    pipeline = sampling.stock_pipeline(base, specs[0])
    assert type(pipeline).__module__.startswith("diffusers.") and pipeline.unet is not base.unet
    sampling.draw_stock(pipeline, specs[::-1], tmp_path / "stock")  # other seeds: a planted bug
    worst, share = sampling.difference(sampling.images_of_store(base, specs, tmp_path / "ours"), sampling.images_of_folder(specs, tmp_path / "stock"))
    assert worst > sampling.LEVELS and share > 0.5


def test_differences_are_in_grey_levels():
    a = np.zeros((1, 2, 2, 3), np.uint8)
    b = a.copy()
    b[0, 1, 1, 2] = 255
    assert sampling.difference(a, b) == (255, 1 / 12) == sampling.difference(b, a)
    with pytest.raises(ValueError, match="cannot be compared"):
        sampling.difference(a, b[:0])


# -- matmul ----------------------------------------------------------------------------------------------------------
def test_layers_as_products_have_the_flops_that_torch_counts(settings):
    base, made = planned(settings)
    forward = matmul.one_forward(base, made.distinct_base_images()[:3])
    assert len(forward["sample"]) == base.exact_rows  # a real sampling forward, padding included
    with torch.inference_mode(), matmul.flop_counter() as counter:
        base.unet(**forward)
    counts = {str(k): v for k, v in counter.get_flop_counts()["Global"].items()}
    layers = sum(counts[k] for k in ("aten.convolution", "aten.addmm", "aten.mm") if k in counts)
    assert sum(matmul.product_sizes(base, forward).values()) == layers
    assert matmul.flops_of(base, forward) == sum(counts.values()) > layers  # the rest is attention


def test_the_share_is_the_floor_over_the_time():
    sizes = [(8, 4, 2), (matmul.SQUARE,) * 3]
    work = matmul.Work(flops=1000, layers={sizes[0]: 600}, rows=10)
    products = [matmul.Product(sizes[0], False), matmul.Product(sizes[0], True), matmul.Product((4, 4, 4), False)]
    floor, own = matmul.rows(work, products, [([50.0, 30.0, 100.0], 20.0)])
    assert floor.value == pytest.approx(1000 / 100 / 20) and floor.met is False
    assert own.value == pytest.approx((600 / 50 + 400 / 100) / 20) and own.met is None
    assert torch.allclose(torch.mm(products[1].a, products[1].b), products[1].a @ products[1].b) and products[1].b.shape == (4, 2)


def test_matmul_runs(settings, monkeypatch):
    monkeypatch.setattr(matmul, "SQUARE", 64)
    assert 0 < matmul.run(settings)[0].value < 1


# -- overhead --------------------------------------------------------------------------------------------------------
def test_all_time_is_network_or_other(settings, monkeypatch):
    write = overhead.write_results

    def slow(*args, **kwargs):
        time.sleep(0.3)
        write(*args, **kwargs)

    monkeypatch.setattr(overhead, "write_results", slow)
    backward = torch.Tensor.backward
    rows = by_name(overhead.run(settings))
    assert torch.Tensor.backward is backward
    assert {"network: denoiser", "network: autoencoder", "network: text encoder", "network: backward", "network: optimiser"} <= set(rows)
    networks = sum(r.value for n, r in rows.items() if n.startswith("network"))
    stages = sum(r.value for n, r in rows.items() if n.startswith("overhead") and n not in ("overhead: not a network", "overhead: padding"))
    assert rows["overhead: not a network"].value + networks == pytest.approx(1) and stages == pytest.approx(rows["overhead: not a network"].value)
    assert float(rows["overhead: results"].ours.split()[0]) >= 0.3
    assert 0 < rows["overhead: padding"].value < rows["network: denoiser"].value


def test_a_run_with_failures_is_not_measured(settings, monkeypatch):
    monkeypatch.setattr("conceptbench.erasers.uce.UCE.erase", lambda *args: 1 / 0)
    with pytest.raises(RuntimeError, match="division by zero"):
        overhead.run(replace(settings, erasers=("uce",)))


# -- esd -------------------------------------------------------------------------------------------------------------
def test_the_plain_formulation_takes_the_papers_step(folders):
    """One trajectory step at most, so x_t is the noise; then the first step of Adam is the learning rate against the gradient's sign."""
    config = ESDConfig(steps=1, batch=2, lr=1e-3, negative_guidance=2.0, denoising_steps=1)
    texts = ["ab", "a ab", "cd"]
    change = esd.plain_esd(load_pipeline(str(folders["sd1"])), texts, config, seed=3).changes[0]
    pipeline = load_pipeline(str(folders["sd1"]))
    pipeline.unet.requires_grad_(False)
    trained = select(pipeline.unet, "xattn")
    assert set(change.tensors) <= set(trained)
    generator = torch.Generator().manual_seed(3)
    chosen = [texts[i] for i in torch.randint(3, (2,), generator=generator).tolist()]
    assert int(torch.randint(1, (1,), generator=generator)) == 0
    x, t = torch.randn(2, 4, 8, 8, generator=generator), torch.tensor(1)
    prompt, empty = (pipeline.encode_prompt(c, "cpu", 1, False)[0] for c in (chosen, [""] * 2))
    for parameter in trained.values():
        parameter.requires_grad_(True)
    cond, uncond = (pipeline.unet(x, t, encoder_hidden_states=e).sample for e in (prompt, empty))
    (cond - esd_target(cond.detach(), uncond.detach(), 2.0)).square().mean().backward()
    for name, delta in change.tensors.items():
        gradient = trained[name].grad
        clear = gradient.abs() > 1e-5  # far above Adam's epsilon
        assert torch.allclose(delta[clear], -1e-3 * gradient.sign()[clear], rtol=1e-2)
    assert sum(int((trained[n].grad.abs() > 1e-5).sum()) for n in change.tensors) > 100


def test_esd_compares_seconds_and_quality(settings):
    rows = by_name(esd.run(settings))
    assert set(rows) == {"esd training", "esd esr-1", "esd psr-1"}
    assert rows["esd training"].value > 0 and "2 steps of 8" in rows["esd training"].how
    assert "2 held-out prompts, 2 images a side" in rows["esd esr-1"].how
    with pytest.raises(UserInputError, match="two prompts"):  # before anything is trained
        esd.run(replace(settings, limit=1, steps=10**6))


def test_worse_quality_is_seen():
    prompts = [f"p{i}" for i in range(40)]
    none, all_, most = ([float(i < n) for i in range(40)] for n in (0, 40, 39))
    judged = {k: esd.Judged(v, prompts) for k, v in (("none", none), ("all", all_), ("most", most))}
    assert esd.quality("esr-1", judged["none"], judged["all"], "one").met is False
    assert esd.quality("esr-1", judged["all"], judged["none"], "one").met is True
    assert esd.quality("esr-1", judged["most"], judged["all"], "one").met is True  # one image of forty: no difference that can be told
    with pytest.raises(RuntimeError, match="same images"):
        esd.quality("esr-1", judged["all"], esd.Judged(all_, prompts[::-1]), "one")


# -- plan ------------------------------------------------------------------------------------------------------------
def test_planning_is_measured_in_a_process_of_its_own(tmp_path, folders):
    settings = Settings(base=str(folders["sd1"]), threads=1, rounds=1, prompts=21, images_per_prompt=2)
    rows = by_name(plan.run(settings))
    assert rows["plan: wall time"].value > rows["plan: without imports and base"].value > 0
    assert 0.1 < rows["plan: peak memory"].value < 8 and "42 distinct images" in rows["plan: wall time"].how
    path = plan.write_suite(tmp_path, "mini", "mini", 21, 2)
    texts = [r["text"] for r in csv.DictReader((path.parent / "prompts.csv").read_text().splitlines())]
    assert len(set(texts)) == len(texts) == 21
    with pytest.raises(RuntimeError, match="planned 40 images, not 42"):
        plan.rows([{"wall": 1.0, "gib": 1.0, "gib before": 0.5, "images": 40}], 42)


# -- leaderboard -----------------------------------------------------------------------------------------------------
def test_leaderboards_are_measured_in_processes_of_their_own():
    found = by_name(leaderboard.run(Settings(threads=1, limit=1, prompts=400)))
    assert found["leaderboard: derived again"].value > 0 and "400 rows" in found["leaderboard: schema"].how
    assert 0.05 < found["leaderboard: export, memory"].value < 8
    seen = {"export": {"wall": 61.0, "gib": 1.0, "rows": 9, "problems": 0}}
    checked = {"problems": 0, "derived": 29, "seconds": 1.0}
    late, memory, slow = leaderboard.rows(seen, checked, 9)
    assert (late.met, memory.met, slow.met) == (False, True, False)
    for wrong in ({"rows": 8}, {"problems": 1}):
        with pytest.raises(RuntimeError, match="of 9 rows, export: "):
            leaderboard.rows({"export": {**seen["export"], **wrong}}, checked, 9)


# -- the command -----------------------------------------------------------------------------------------------------
def test_one_table_and_one_file(tmp_path, monkeypatch, capsys):
    met = Row("sampling", "9 img/s", "2 img/s", 4.5, "x", ("at least", 3.5), (4.0, 5.0), "quickly")
    monkeypatch.setattr(sampling, "run", lambda s: [met] if s.rounds == 2 else [])
    monkeypatch.setattr(plan, "run", lambda s: [Row("plan", "", "", 21.0, "s", ("at most", 20.0))])
    monkeypatch.setattr(esd, "run", lambda s: 1 / 0)
    assert run.main(["sampling", "--rounds", "2", "--json", str(tmp_path / "out.json")]) == 0
    shown = capsys.readouterr().out
    assert all(t in shown for t in ("4.50 x", "4.00 x ... 5.00 x", "at least 3.50 x", "yes", "torch threads", "conceptbench", "quickly"))
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["rows"][0]["value"] == 4.5 and document["rows"][0]["met"] is True and document["settings"]["rounds"] == 2
    assert run.main(["plan"]) == 1 and "NO" in capsys.readouterr().out
    assert run.main(["esd", "sampling", "--rounds", "2"]) == 1  # one that fails does not keep the others
    both = capsys.readouterr()
    assert "4.50 x" in both.out and "failed: esd" in both.out and "ZeroDivisionError" in both.err


@pytest.mark.parametrize("arguments", [["speed"], ["sampling", "--rounds", "0"], ["sampling", "--threads", "-1"]])
def test_wrong_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        run.main(arguments)
    assert error.value.code == 2 and ("there are sampling" in capsys.readouterr().err or arguments[0] == "sampling")


# -- judging ---------------------------------------------------------------------------------------------------------
def test_judging_asks_every_judge_about_every_image_on_both_sides(settings, monkeypatch):
    from world import ColourJudge

    found = judging.run(settings)
    assert [r.name for r in found] == ["judging: all metrics together", *(f"judging: {j}" for j in ("colour", "length", "distance"))]
    assert found[0].bound == ("at most", 1.3) and found[0].value > 0 and all(r.unit == "ms" and r.value > 0 for r in found[1:])
    seen = {}

    def looked(scene, _rounds, _alone):  # while the store is there
        before = ColourJudge.looked
        judging.judge_alone(scene, "colour")
        alone = ColourJudge.looked
        judging.score_all(scene)
        seen.update(images=scene.images, alone=alone - before, together=ColourJudge.looked - alone)
        return []

    monkeypatch.setattr(judging, "rows", looked)
    judging.run(settings)
    images = 2 * 2 + 3 * 2  # two and three concepts, two prompts each
    assert seen == {"images": images, "alone": images, "together": images}


# -- erasers ---------------------------------------------------------------------------------------------------------
def test_erasers_take_the_same_steps_on_both_sides(settings, monkeypatch):
    monkeypatch.setattr(erasers, "METHODS", ("gcirs", "ca"))
    rows = by_name(erasers.run(replace(settings, steps=3)))
    assert list(rows) == ["gcirs steps", "gcirs tensors", "ca steps", "ca tensors"] and all(r.value > 0 for r in rows.values())
    assert "gcirs-xattn:mini, 3 steps of" in rows["gcirs steps"].how
    base = load_base(settings.base)
    suite = load_suite(settings.suite)
    request = EraseRequest((task_concepts(suite, suite.tasks[0])["ab"],), (), suite.sampler, seed=1)
    made, images = erasers.with_steps(settings, base, "gcirs", request, 3), erasers.Images(base, request)
    early = replace(made, config=made.config.model_copy(update={"min_steps": 0, "tau": 1e9}))  # below at once
    erasers.erase(base, request, replace(early, config=early.config.model_copy(update={"min_steps": 3})), images)
    with pytest.raises(RuntimeError, match="took 1 steps, and not 3"):
        erasers.erase(base, request, early, images)


def test_erasers_have_the_options_of_the_targets_kind(settings):
    base = load_base(settings.base)
    request = EraseRequest((Concept(name="s", kind="style", phrases=("ab",)),), (), Sampler(), seed=1)
    made = measuring.entry(settings, base, "fmn:mini")
    own = erasers.with_steps(settings, base, "fmn", request, 3).config
    assert own == made.by_kind["style"].model_copy(update={"steps": 3}) and own.eos != made.config.eos
