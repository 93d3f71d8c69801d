"""Targets together, in turn and apart; targets that are brought back; what no eraser is told of; what all erasures share."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest
import torch
from PIL import Image
from running import carry_out, entry, runner_of
from world import write_suite

from conceptbench.core.errors import BaseChangedError, UserInputError
from conceptbench.core.manifests import load_suite
from conceptbench.core.registry import ERASERS
from conceptbench.core.seeds import training_seed
from conceptbench.engine import training
from conceptbench.engine.brought import checkpoint_entries
from conceptbench.engine.drawing import chosen_part
from conceptbench.engine.erasing import check_requests, stored_erasure
from conceptbench.engine.lineup import resolve
from conceptbench.engine.preview import preview
from conceptbench.models.conditions import Condition
from conceptbench.models.eraser import Eraser, EraserConfig, Supports
from conceptbench.models.erasure import Change, Erasure, RuntimeSpec, values_of
from conceptbench.models.export import export_erasure


class BumpConfig(EraserConfig):
    size: float = 1.0
    folder: str | None = None

    def folders(self):
        return (self.folder,) if self.folder else ()


class Bump(Eraser[BumpConfig]):
    """Multiplies the value projections by something that depends on the target: what it yields depends on what it begins with."""

    name = "bump"
    Config = BumpConfig
    variants = MappingProxyType({"": {}})
    supports = Supports(iterative=True, heeds_others=True)
    asked = []
    refused = False
    fails = 0

    @classmethod
    def check(cls, base, request, config):
        if cls.refused:
            raise UserInputError("no room for " + ", ".join(c.name for c in (*request.targets, *request.others)))

    def erase(self, base, request, config, ctx):
        if Bump.fails:
            Bump.fails += 1
            raise ValueError("half way")
        Bump.asked.append(([c.name for c in request.targets], [c.name for c in request.retained], [c.name for c in request.others]))
        kv = base.parameters("kv")
        before = values_of(kv)
        factor = 1 + config.size * sum(ord(x) for c in request.targets for x in c.name) / 1e3
        ctx.progress(0, 1, 1.0)
        erasure = Erasure.additive(before, {n: factor * v for n, v in before.items()})
        erasure.artefacts = {"pixels": torch.tensor(ctx.images(request.targets[0], 2, config.folder))}
        return erasure


class Hides(Eraser[EraserConfig]):
    """Zeroes the value projections, and keeps hidden what brings images back."""

    name = "hides"
    supports = Supports(recover=True)

    def erase(self, base, request, config, ctx):
        before = values_of(base.parameters("kv"))
        made = Erasure.additive(before, {n: torch.zeros_like(v) for n, v in before.items()})
        made.hidden, made.recovery = {"prompt": torch.ones(2)}, RuntimeSpec("negative-prompt", {"text": "gh"})
        return made


ERASERS.add("bump", Bump)
ERASERS.add("hides", Hides)


@pytest.fixture(autouse=True)
def _nothing_asked():
    Bump.asked.clear()
    Bump.refused, Bump.fails, Bump.supports = False, 0, Supports(iterative=True, heeds_others=True)


def suite_with(tmp_path, *changes):
    """The tiny suite with a task a change; ab and gh are targets, ef is kept."""
    common = {"targets": ["ab", "gh"], "retained": ["ef"], "prompts": {"set": str(tmp_path / "suite" / "prompts.csv")}}
    return write_suite(tmp_path / "suite", tasks=[{"id": f"t{i}", **common, **change} for i, change in enumerate(changes)])


def erasures(runner):
    return {u.task.id: stored_erasure(runner.store, u.key) for u in runner.plan.erasures}


def factors(base, erasure, concepts=None):
    """How much larger the value projections are with an erasure."""
    _name, weight = next(iter(base.parameters("kv").items()))
    before = weight.data.clone()
    with erasure.applied(base, concepts):
        return float((weight.data.double() / before.double()).median())


AB, GH = 1 + (97 + 98) / 1e3, 1 + (103 + 104) / 1e3


def test_modes(folders, tmp_path):
    suite = suite_with(tmp_path, {}, {"mode": "in-turn"}, {"mode": "apart"}, {"mode": "in-turn", "targets": ["gh", "ab"]})
    _, runner = carry_out(suite, folders, tmp_path / "store", ["bump"])
    found = erasures(runner)
    assert factors(runner.base, found["t0"]) == pytest.approx(AB + GH - 1, rel=1e-5)
    assert factors(runner.base, found["t1"]) == pytest.approx(AB * GH, rel=1e-5)
    assert factors(runner.base, found["t2"]) == pytest.approx(AB + GH - 1, rel=1e-5)
    assert factors(runner.base, found["t3"]) == pytest.approx(AB * GH, rel=1e-5)
    assert found["t1"].concepts() == ["ab", "gh"] and found["t0"].concepts() == []
    assert factors(runner.base, found["t1"], ["ab"]) == pytest.approx(AB, rel=1e-5)
    assert factors(runner.base, found["t1"], ["gh"]) == pytest.approx(1 + AB * (GH - 1), rel=1e-5)
    # together, then ab alone, gh after ab, both apart with the other named, gh alone, ab after gh
    assert Bump.asked == [
        (["ab", "gh"], ["ef"], []),
        (["ab"], ["ef"], []),
        (["gh"], ["ef"], ["ab"]),
        (["ab"], ["ef"], ["gh"]),
        (["gh"], ["ef"], ["ab"]),
        (["gh"], ["ef"], []),
        (["ab"], ["ef"], ["gh"]),
    ]
    parts = found["t1"].meta
    assert parts["size_bytes"] == sum(e.nbytes for c in found["t1"].changes for e in c.tensors.values()) and len(parts["parts"]) == 2
    assert [p["step"] for p in parts["curve"]] == [0, 1]


def test_reference_images_are_the_unmodified_bases_also_in_the_second_turn(folders, tmp_path):
    size = 1000.0  # the first turn leaves nothing of the images as they were
    turn = suite_with(tmp_path, {"mode": "in-turn"})
    _, runner = carry_out(turn, folders, tmp_path / "one", [entry(f"bump,size={size}")])
    alone = suite_with(tmp_path, {"targets": ["gh"]})
    _, other = carry_out(alone, folders, tmp_path / "two", ["bump"])
    pixels = erasures(runner)["t0"].artefacts
    assert torch.equal(pixels["gh/pixels"], erasures(other)["t0"].artefacts["pixels"])
    with erasures(runner)["t0"].part(["ab"]).applied(other.base):
        drawn = other.base.sample([Condition("gh")], [training_seed("reference", "gh", 0)], other.plan.suite.sampler)
    assert not np.array_equal(pixels["gh/pixels"][0].numpy(), drawn[0])  # what would have been drawn otherwise


def test_independent_methods_see_the_unmodified_base_in_turn(folders, tmp_path):
    Bump.supports = Supports(iterative=True, heeds_others=True, independent=True)
    _, runner = carry_out(suite_with(tmp_path, {"mode": "in-turn"}), folders, tmp_path / "store", ["bump"])
    assert factors(runner.base, erasures(runner)["t0"]) == pytest.approx(AB + GH - 1, rel=1e-5)
    assert Bump.asked == [(["ab"], ["ef"], []), (["gh"], ["ef"], ["ab"])]


def test_a_part_is_the_same_beside_any_others_unless_its_method_heeds_them(folders, tmp_path):
    Bump.supports = Supports(iterative=True)
    suite = suite_with(tmp_path, {"mode": "apart"}, {"targets": ["ab"]}, {"targets": ["gh", "ab"], "mode": "apart"})
    _, runner = carry_out(suite, folders, tmp_path / "store", ["bump"])
    assert Bump.asked == [(["ab"], ["ef"], []), (["gh"], ["ef"], [])]
    assert [u.name for u in runner.plan.calls()] == ["bump:default [t0: ab]", "bump:default [t0: gh]"]


def test_a_failure_is_not_tried_again_by_tasks_that_share_it(folders, tmp_path):
    Bump.fails = 1
    suite = suite_with(tmp_path, {"mode": "apart"}, {"mode": "apart", "restored": ["ab"]}, {"mode": "apart", "restored": ["gh"]})
    outcome, _ = carry_out(suite, folders, tmp_path / "store", ["bump"])
    assert Bump.fails == 2 and len(outcome.failures) == 3
    assert all("target 'ab'" in f["reason"] and "half way" in f["reason"] for f in outcome.failures)


def test_a_target_without_a_change_can_be_left_out_too(folders, tmp_path):
    suite = suite_with(tmp_path, {"mode": "apart"}, {"mode": "apart", "restored": ["ab"]})
    outcome, runner = carry_out(suite, folders, tmp_path / "store", [entry("bump,size=0")])
    assert not outcome.failures and erasures(runner)["t0"].concepts() == ["ab", "gh"]


def test_one_target_apart_leaves_nothing_when_it_is_restored(folders, tmp_path):
    suite = suite_with(tmp_path, {"targets": ["ab"], "mode": "apart", "restored": ["ab"]})
    outcome, _ = carry_out(suite, folders, tmp_path / "store", ["bump"])
    values = {(r.eraser, r.metric): r.value for r in outcome.rows if r.concept == "ab"}
    assert not outcome.failures and values["bump", "psr-1"] == values["base", "psr-1"]


def test_what_is_edited_in_place_is_not_drawn_from(folders, tmp_path):
    class InPlace(Eraser[EraserConfig]):
        name = "in-place"

        def erase(self, base, request, config, ctx):
            p = next(iter(base.parameters("kv").values()))
            before = p.data.clone()
            p.data.mul_(3)
            try:
                ctx.images(request.targets[0], 2)
            finally:
                p.data.copy_(before)
            return Erasure()

    ERASERS.add("in-place", InPlace)
    with pytest.raises(BaseChangedError, match=r"in-place:default \[t0\] edited the base's own tensors in place"):
        carry_out(suite_with(tmp_path, {"targets": ["ab"]}), folders, tmp_path / "store", ["in-place"])


def test_checkpoints_are_what_they_are_in_any_mode(folders, tmp_path):
    suite = suite_with(tmp_path, {"mode": "apart"}, {"mode": "apart", "restored": ["ab"]}, {"mode": "in-turn"})
    _, runner = carry_out(suite, folders, tmp_path / "store", ["bump"])
    erasures(runner)["t0"].save(tmp_path / "mine.safetensors")
    outcome, runner = carry_out(suite, folders, tmp_path / "store", checkpoint_entries([str(tmp_path / "mine.safetensors")], []))
    assert not outcome.failures and outcome.erasures["mine:checkpoint", "t0"] == outcome.erasures["mine:checkpoint", "t2"]
    assert outcome.erasures["mine:checkpoint", "t1"] == erasures(runner)["t1"].part(["gh"]).weights_hash()


def test_a_checkpoint_without_parts_cannot_be_restored_and_that_is_said_first(folders, tmp_path):
    suite = suite_with(tmp_path, {}, {"mode": "apart", "restored": ["ab"]})
    _, runner = carry_out(suite_with(tmp_path, {}), folders, tmp_path / "store", ["bump"])
    erasures(runner)["t0"].save(tmp_path / "mine.safetensors")
    suite = suite_with(tmp_path, {}, {"mode": "apart", "restored": ["ab"]})
    with pytest.raises(UserInputError, match="unknown concept of this erasure 'ab'"):
        carry_out(suite, folders, tmp_path / "other", checkpoint_entries([str(tmp_path / "mine.safetensors")], []))


def test_plan_counts_calls_and_nothing_when_all_is_there(folders, tmp_path):
    suite = suite_with(tmp_path, {"mode": "apart"}, {"mode": "apart", "restored": ["ab"]})
    runner = runner_of(suite, folders["sd1"], tmp_path / "store", ["bump"])
    assert (preview(runner.plan, runner.store, runner.base).erasures, preview(runner.plan, runner.store, runner.base).erasures_cached) == (2, 0)
    outcome = runner.run()
    assert outcome.work.erasures == 2
    for part in runner.plan.calls():
        runner.store.erasure_path(part.key).unlink()
    shown = preview(runner.plan, runner.store, runner.base)
    assert (shown.erasures, shown.erasures_cached, shown.images - shown.images_cached) == (2, 2, 0)


def test_prefixes_are_shared_and_calls_are_counted_once(folders, tmp_path):
    suite = suite_with(tmp_path, {"mode": "in-turn"}, {"targets": ["ab"]}, {"mode": "in-turn", "restored": ["gh"]})
    runner = runner_of(suite, folders["sd1"], tmp_path / "store", ["bump"])
    assert len(runner.plan.calls()) == 2  # ab, and gh after it
    runner.run()
    assert [a[0] for a in Bump.asked] == [["ab"], ["gh"]]


def test_restored_targets_are_measured_as_kept(folders, tmp_path):
    suite = suite_with(tmp_path, {"mode": "apart"}, {"mode": "apart", "restored": ["ab"]}, {"targets": ["gh"]})
    outcome, runner = carry_out(suite, folders, tmp_path / "store", ["bump"])
    rows = {(r.task, r.concept, r.role) for r in outcome.rows if r.eraser == "bump"}
    assert ("t1", "ab", "restored") in rows and ("t1", "gh", "target") in rows and ("t1", "ab", "target") not in rows
    assert ("t0", "ab", "target") in rows
    spec = runner.plan.entries[0].spec
    assert outcome.erasures[spec, "t1"] != outcome.erasures[spec, "t0"]
    only = erasures(runner)["t0"].part(["gh"])
    assert outcome.erasures[spec, "t1"] == only.weights_hash()


def test_nobody_is_told_of_the_unseen(folders, tmp_path):
    suite = suite_with(tmp_path, {"targets": ["ab"], "retained": ["ef"], "unseen": ["gh"]})
    outcome, _ = carry_out(suite, folders, tmp_path / "store", ["bump"])
    assert Bump.asked == [(["ab"], ["ef"], [])]
    assert ("gh", "unseen") in {(r.concept, r.role) for r in outcome.rows if r.eraser == "bump"}


def test_recovery_brings_back_and_stays_in_the_store(folders, tmp_path):
    suite = suite_with(
        tmp_path, {"targets": ["ab"]}, {"targets": ["ab"], "restored": ["ab"]}, {"targets": ["ab"], "restored": ["ab"], "restore_with": "random"}
    )
    outcome, runner = carry_out(suite, folders, tmp_path / "store", ["hides"])
    assert outcome.work.erasures == 1 and len(set(outcome.erasures.values())) == 3
    erasure = erasures(runner)["t0"]
    back = erasure.restoring(["ab"], "random")
    assert back.runtime == RuntimeSpec("negative-prompt", {"text": "gh", "concepts": ["ab"], "key": "random"}) and erasure.runtime is None
    with back.applied(runner.base):
        assert runner.base.runtime is not None and set(runner.base.runtime.artefacts) == {"prompt"}
    assert runner.base.runtime is None
    export_erasure(erasure, runner.base, tmp_path / "patch.safetensors", "patch")
    public = Erasure.load(tmp_path / "patch.safetensors")
    assert public.recovery is None and not public.hidden


@pytest.mark.parametrize(
    ("eraser", "change", "message"),
    [
        ("negative-prompt", {"mode": "in-turn"}, "cannot erase targets in-turn.*do not add up"),
        ("uce", {"restored": ["ab"]}, "cannot bring ab back"),
        ("bump", {"mode": "apart", "restored": ["ab"], "restore_with": "random"}, "nothing hidden"),
    ],
)
def test_what_an_eraser_cannot_do_is_said_before_anything_starts(folders, tmp_path, eraser, change, message):
    with pytest.raises(UserInputError, match=message):
        runner_of(suite_with(tmp_path, change), folders["sd1"], tmp_path / "store", [eraser])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"restored": ["ef"]}, "restored names what is no target of the task: ef; its targets: ab, gh"),
        ({"restored": ["ab"], "restore_with": "zz"}, "restore_with is 'zz'"),
        ({"restore_with": "random"}, "nothing is restored"),
        ({"unseen": ["ef"]}, "both retained and unseen: ef"),
        ({"unseen": ["ab"]}, "both target and unseen: ab"),
        ({"mode": "sideways"}, "sideways|in-turn"),
        ({"targets": ["ab", "ab"]}, "twice in targets: ab"),
        ({"restored": ["ab", "ab"]}, "twice in restored: ab"),
    ],
)
def test_a_task_that_contradicts_itself(folders, tmp_path, change, message):
    with pytest.raises(UserInputError, match=message):
        load_suite(str(suite_with(tmp_path, change)))


def test_an_erasers_own_check_hears_of_each_call(folders, tmp_path):
    runner = runner_of(suite_with(tmp_path, {"mode": "apart"}), folders["sd1"], tmp_path / "store", ["bump"])
    check_requests(runner.base, runner.plan)
    Bump.refused = True
    with pytest.raises(UserInputError, match="no room for ab, gh"):
        check_requests(runner.base, runner.plan)


def test_a_folders_content_is_part_of_the_key_and_its_images_are_squares(folders, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i, colour in enumerate([(255, 0, 0), (0, 255, 0)]):
        Image.new("RGB", (40, 24), colour).save(pictures / f"{i}.png")
    suite = suite_with(tmp_path, {"targets": ["ab"]})

    def run():
        spec = entry(f"bump,folder={pictures}")
        _, runner = carry_out(suite, folders, tmp_path / "store", [spec])
        return erasures(runner)["t0"].artefacts["pixels"].numpy(), runner.plan.erasures[0].key

    pixels, key = run()
    assert pixels.shape == (2, 16, 16, 3) and (pixels[0] == [255, 0, 0]).all()
    Image.new("RGB", (40, 24), (0, 0, 255)).save(pictures / "0.png")
    pixels, other = run()
    assert other != key and (pixels[0] == [0, 0, 255]).all()
    with pytest.raises(UserInputError, match="there is no folder"):
        runner_of(suite, folders["sd1"], tmp_path / "store", [entry("bump,folder=nowhere")])


def test_what_is_shared_is_made_once_from_the_unmodified_base(folders, tmp_path, monkeypatch):
    made = []

    class Shares(Eraser[EraserConfig]):
        name = "shares"

        def erase(self, base, request, config, ctx):
            kv = base.parameters("kv")
            before = {n: p.data for n, p in kv.items()}

            def make(generator):
                made.append({n: p.data.clone() for n, p in kv.items()})
                base.predict(torch.zeros(1, *base.latent_shape(None)), torch.tensor([3]), base.encode(["x"]))
                return {"x": torch.randn(3, generator=generator)}

            for p in kv.values():
                p.data = torch.zeros_like(p.data)
                p.requires_grad_(True)
            x = ctx.shared("fisher", {"images": 3}, make)["x"]
            assert all(p.requires_grad and not p.data.any() for p in kv.values())
            for n, p in kv.items():
                p.data = before[n]
                p.requires_grad_(False)
            return Erasure(artefacts={"x": x, "other": ctx.shared("fisher", {"images": 4}, make)["x"]})

    ERASERS.add("shares", Shares)
    suite = suite_with(tmp_path, {"targets": ["ab"]}, {"targets": ["gh"]})
    _outcome, runner = carry_out(suite, folders, tmp_path / "store", ["shares"])
    first, second = erasures(runner).values()
    assert len(made) == 2 and torch.equal(first.artefacts["x"], second.artefacts["x"])
    assert not torch.equal(first.artefacts["x"], first.artefacts["other"])
    original = {n: p.data for n, p in runner.base.parameters("kv").items()}
    assert all(torch.equal(m[n], original[n]) for m in made for n in original)
    assert {e.meta["network_evaluations"] for e in (first, second)} == {0}  # not part of what one erasure costs
    monkeypatch.setattr(training, "shared_source_hash", lambda: "another")
    _outcome, runner = carry_out(suite, folders, tmp_path / "store", ["shares"])
    assert len(made) == 2  # the erasures are there
    for unit in runner.plan.calls():
        runner.store.erasure_path(unit.key).unlink()
    _outcome, runner = carry_out(suite, folders, tmp_path / "store", ["shares"])
    again, _ = erasures(runner).values()
    assert len(made) == 4 and torch.equal(again.artefacts["x"], first.artefacts["x"])  # made anew by edited code, from the same draws


def test_options_that_are_lists_and_texts():
    sa = resolve("sa:mini,replay_texts=[a dog, 'a cat, asleep'],surrogate=no, thanks".replace("no, thanks", "no"), family="sd1", tier="mini").config
    assert sa.replay_texts == ("a dog", "a cat, asleep") and sa.surrogate == "no"
    assert resolve("negative-prompt,text='a, b'", family="sd1", tier="mini").config.text == "a, b"
    assert resolve("negative-prompt,text=null", family="sd1", tier="mini").config.text is None
    sepme = resolve("sepme:mini,tau={church: 0.1, fish: -2e-3}", family="sd1", tier="mini")
    assert sepme.config.tau == {"church": 0.1, "fish": -0.002}
    clip = resolve("esd-x:mini,steps=5,clip=null", family="sd1", tier="mini")
    assert clip.preset == "mini,clip=null,steps=5" and resolve(clip.spec, family="sd1", tier="mini") == clip
    assert resolve("esd-x:mini,clip=null,steps=5", family="sd1", tier="mini").spec == clip.spec
    with pytest.raises(UserInputError, match="not readable"):
        resolve("esd-x:mini,lr=2024-13-45", family="sd1", tier="mini")


def test_options_in_a_spec():
    made = resolve("bump,size=2e-3", family="sd1", tier="paper")
    assert made.config.size == 0.002 and made.spec == "bump:default,size=0.002"
    esd = resolve("esd-x:mini,lr=1e-3,steps=5", family="sd1", tier="paper")
    assert (esd.config.lr, esd.config.steps, esd.config.bank, esd.preset) == (0.001, 5, 64, "mini,lr=0.001,steps=5")
    assert resolve("esd-x,steps=5", family="sd1", tier="mini").preset == "mini,steps=5"
    for spec, message in (
        ("esd-x:mini,lrr=1", "did you mean 'lr'"),
        ("esd-x:mini,lr", "'lr' is no option"),
        ("esd-x:mini,lr=1,lr=2", "no option of its own"),
        ("esd-x:mini,lr=fast", "lr: "),
        ("esd-x:minni,lr=1e-3", "did you mean 'mini'"),
    ):
        with pytest.raises(UserInputError, match=message):
            resolve(spec, family="sd1", tier="paper")


def test_options_of_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from conceptbench.models.eraser import Eraser, EraserConfig\n"
        "class C(EraserConfig):\n    size: float = 1.0\n"
        "class Mine(Eraser[C]):\n    name = 'mine-with-options'\n    Config = C\n    def erase(self, base, request, config, ctx): ...\n"
    )
    assert resolve(f"{path}:Mine,size=3", family="sd1", tier="mini").config.size == 3
    assert resolve(f"{path},size=4", family="sd1", tier="mini").spec == "mine-with-options:default,size=4"


def hidden_erasure(**meta):
    return Erasure(hidden={"p": torch.ones(1)}, recovery=RuntimeSpec("negative-prompt", {"text": "gh"}), meta=meta)


def test_what_of_an_erasure_is_applied():
    parts = Erasure([Change("unet", "additive", {}, "ab"), Change("unet", "additive", {}, "gh")])
    assert chosen_part(None, None, False, "") is None
    assert chosen_part(parts, ["gh"], False, "").concepts() == ["gh"]
    assert chosen_part(hidden_erasure(targets=["ab"]), None, True, "").runtime.config["concepts"] == ["ab"]
    assert chosen_part(hidden_erasure(targets=["ab"]), ["gh"], True, "random").runtime.config == {"text": "gh", "concepts": ["gh"], "key": "random"}


@pytest.mark.parametrize(
    ("erasure", "concepts", "recover", "key", "message"),
    [
        (None, ["ab"], False, "", "none is given"),
        (None, None, True, "", "none is given"),
        (None, None, False, "random", "none is given"),
        (Erasure(), None, True, "", "this one has none"),
        (hidden_erasure(targets=["ab"]), None, False, "random", "--recover is not given"),
        (hidden_erasure(), None, True, "", "does not say what its targets were"),
        (Erasure([Change("unet", "additive", {}, "church")]), ["churhc"], False, "", "did you mean 'church'"),
    ],
)
def test_what_cannot_be_applied(erasure, concepts, recover, key, message):
    with pytest.raises(UserInputError, match=message):
        chosen_part(erasure, concepts, recover, key)
