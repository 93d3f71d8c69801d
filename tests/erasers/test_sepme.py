from __future__ import annotations

import json

import pytest
import tiny
import torch
from correlating import SECOND, delta, short, states
from erasing import SAMPLER, TARGET, Images, Interrupted, Resumed, Stopped, assert_base_untouched, assert_falls, request, snapshot, stopped_and_resumed

from conceptbench.core.errors import UserInputError
from conceptbench.core.schemas import Concept
from conceptbench.engine.lineup import resolve
from conceptbench.erasers.gcirs import GCiRs, GCiRsConfig
from conceptbench.erasers.sepme import SepME, SepMEConfig
from conceptbench.erasers.shared.correlation import ConceptImages
from conceptbench.erasers.shared.null_space import null_space
from conceptbench.erasers.shared.references import References
from conceptbench.models.eraser import EraseRequest
from conceptbench.models.erasure import Erasure
from conceptbench.models.groups import select

QUICK = {"steps": 3, "batch": 2, "lr": 1.0, "beta": 1e-2, "images": 4, "l1": 0.0, "tau": -1e9}
MORE = tuple(Concept(name=n, kind="object", phrases=(n,)) for n in ("kl", "mn", "op"))


@pytest.fixture(params=tiny.FAMILIES)
def base(request, tmp_path):
    return short(request.param, tmp_path)


@pytest.fixture
def sd1(tmp_path):
    return short("sd1", tmp_path / "sd1")


def dense(erasure, concept):
    return next(c.tensors for c in erasure.changes if c.concept == concept)


def test_protected_prompts_stay_and_the_target_changes(base):
    before = snapshot(base)
    erasure = SepME().erase(base, request(TARGET, SECOND), SepMEConfig(**QUICK), Images())
    assert_base_untouched(base, before)
    assert erasure.concepts() == ["ab", "gh"] and [c.kind for c in erasure.changes] == ["additive"] * 2
    for own, other in (("ab", "gh"), ("gh", "ab")):
        tensors = dense(erasure, own)
        assert set(tensors) == set(select(base.unet, "kv"))
        a = states(base, other)
        for name, change in tensors.items():
            assert float((a @ change.double().T).abs().max()) < 1e-5 * float(change.abs().max()), name
            assert float((states(base, own) @ change.double().T).abs().max()) > 1e-2 * float(change.abs().max())
    check_predictions(base, erasure)


@torch.no_grad()
def check_predictions(base, erasure):
    x, t = base.initial_noise([1, 3]), torch.tensor([500, 20])
    texts = {text: base.encode([text] * 2) for text in ("ab", "gh", "")} | {None: base.encode_unconditional(["", ""])}
    plain = {text: base.predict(x, t, e) for text, e in texts.items()}
    for concepts, moved in ((["ab"], {"ab"}), (["gh"], {"gh"}), (None, {"ab", "gh"})):
        with erasure.applied(base, concepts):
            for text, encoded in texts.items():
                distance = float((base.predict(x, t, encoded) - plain[text]).abs().max())
                assert distance > 1e-3 if text in moved else distance < 3e-6, (concepts, text, distance)


def test_what_is_protected(sd1):
    """The request's other targets, those that other parts erase, and with ``retained`` what is kept."""
    first = request(TARGET, SECOND, retained=())
    apart = EraseRequest((TARGET,), (), SAMPLER, others=(SECOND,))
    kept = EraseRequest((TARGET,), (SECOND,), SAMPLER)
    for made, options in ((first, {}), (apart, {}), (kept, {"protect": "retained"})):
        erasure = SepME().erase(sd1, made, SepMEConfig(**QUICK, **options), Images())
        facts = erasure.meta["null_spaces"]["ab"]
        assert (facts["texts"], facts["rank"], facts["free"]) == (["gh"], 15, 17) and facts["residual"] < 1e-13
        json.dumps(erasure.meta)
    alone = SepME().erase(sd1, kept, SepMEConfig(**QUICK), Images())
    assert alone.meta["null_spaces"]["ab"]["texts"] == [] and alone.meta["null_spaces"]["ab"]["free"] == 24
    change = next(iter(dense(alone, "ab").values())).double()
    assert float((states(sd1) @ change.T).abs().max()) < 1e-6 < 1e-3 < float((states(sd1, "gh") @ change.T).abs().max())


def test_the_sum_of_parts_restores_exactly(sd1):
    before = snapshot(sd1)
    erasure = SepME().erase(sd1, request(TARGET, SECOND), SepMEConfig(**QUICK), Images())
    for gone, left in (("ab", "gh"), ("gh", "ab")):
        with erasure.restoring([gone]).applied(sd1):
            for name, parameter in sd1.unet.named_parameters():
                assert torch.equal(parameter, before[name] + dense(erasure, left).get(name, 0.0))
    with erasure.restoring(["ab", "gh"]).applied(sd1):
        assert all(torch.equal(p, before[n]) for n, p in sd1.unet.named_parameters())


def test_no_step_is_no_change(sd1, tmp_path):
    """The parts are there all the same, so that a target can be chosen and brought back."""
    for stop in ("sum", "each"):
        context = Images()
        erasure = SepME().erase(sd1, request(TARGET, SECOND), SepMEConfig(**{**QUICK, "tau": 1e9, "stop": stop}), context)
        assert len(context.losses) == 1 and erasure.size_bytes() == 0
        assert erasure.concepts() == ["ab", "gh"] and erasure.part(["gh"]).concepts() == ["gh"] and erasure.restoring(["ab"]).concepts() == ["gh"]
        erasure.save(tmp_path / "e.safetensors")
        assert Erasure.load(tmp_path / "e.safetensors").concepts() == ["ab", "gh"]


def test_first_step_equals_autograd_by_hand(base):
    """The loss at w = 0 is the mean square; dW = -lr sign(G beta S) (beta S)^T with the gradient G of the whole weight, in the basis S."""
    config = SepMEConfig(**{**QUICK, "steps": 1})
    context = Images()
    made = EraseRequest((TARGET,), (), SAMPLER, others=(SECOND,))
    erasure = SepME().erase(base, made, config, context)
    replay = Images()
    batch = ConceptImages.of(base, replay, [TARGET], config).draw(base, [0], 2, replay.generator)
    parameters = select(base.unet, "kv")
    for p in parameters.values():
        p.requires_grad_(True)
    now = delta(base, batch)
    value = (now.detach() * now).mean()
    gradients = dict(zip(parameters, torch.autograd.grad(value, list(parameters.values())), strict=True))
    for p in parameters.values():
        p.requires_grad_(False)
    assert context.losses[0] == pytest.approx(float(value.detach()), rel=1e-4) and context.losses[0] > 0
    basis = 1e-2 * null_space(states(base, "gh")).basis  # its columns are tested above against another library
    by_hand = {n: g.double() @ basis for n, g in gradients.items()}
    norm = torch.cat([g.flatten() for g in by_hand.values()]).norm()
    assert context.curve[0]["gradient_norm"] == pytest.approx(float(norm), rel=1e-3)  # a teacher that is not detached doubles it
    for name, change in dense(erasure, "ab").items():
        g, w = by_hand[name], change.double() @ basis / 1e-4
        assert bool(g.any()) and torch.allclose(w, -g / (g.abs() + 1e-8), atol=0.02), name
        assert torch.allclose(w @ basis.T, change.double(), atol=1e-6)


@pytest.mark.parametrize("penalise", ["w", "change"])
def test_penalty_of_coefficients_or_of_the_change(sd1, penalise):
    made = EraseRequest((TARGET,), (), SAMPLER, others=(SECOND,))
    options = {**QUICK, "l1": 0.3, "penalise": penalise}
    once = SepME().erase(sd1, made, SepMEConfig(**{**options, "steps": 1}), Images())
    context = Images()
    SepME().erase(sd1, made, SepMEConfig(**{**options, "steps": 2}), context)
    changes = list(dense(once, "ab").values())
    basis = null_space(states(sd1, "gh")).basis
    sizes = [float(d.abs().sum() if penalise == "change" else (d.double() @ basis / 1e-2).abs().sum()) for d in changes]
    assert context.losses[1] - context.curve[1]["correlation"] == pytest.approx(0.3 * sum(sizes) / len(changes), rel=1e-4)


def test_together_and_apart_give_the_same_parts(sd1, monkeypatch):
    """The parts do not see each other: the same batches give the same coefficients."""

    def fixed(self, base, batch, generator):
        noise = torch.Generator().manual_seed(sum(map(ord, self.texts[0])))
        return self.noised(base, torch.arange(batch), torch.tensor([100, 700]), torch.randn((batch, *self.latents.shape[1:]), generator=noise))

    monkeypatch.setattr(References, "draw", fixed)
    config = SepMEConfig(**{**QUICK, "lr": 0.1, "balance": "equal"})
    together = SepME().erase(sd1, request(TARGET, SECOND), config, Images())
    for own, other in ((TARGET, SECOND), (SECOND, TARGET)):
        apart = SepME().erase(sd1, EraseRequest((own,), (), SAMPLER, others=(other,)), config, Images(9))
        for name, change in dense(apart, own.name).items():
            assert torch.allclose(change, dense(together, own.name)[name], atol=2e-2 * float(change.abs().max())), name


def test_each_target_stops_at_its_own_threshold(sd1):
    one = {**QUICK, "tau": {"ab": 1e9, "gh": -1e9}, "stop": "each"}
    context = Images()
    erasure = SepME().erase(sd1, request(TARGET, SECOND), SepMEConfig(**one), context)
    assert len(context.losses) == 3 and not dense(erasure, "ab") and dense(erasure, "gh")
    assert context.curve[2]["momentum ab"] == context.curve[0]["momentum ab"]
    for accumulate in (False, True):
        stays = SepME().erase(sd1, request(TARGET, SECOND), SepMEConfig(**one, check="after", accumulate=accumulate), Images())
        step = SepME().erase(sd1, request(TARGET, SECOND), SepMEConfig(**{**QUICK, "steps": 1}), Images())
        assert all(torch.equal(d, dense(step, "ab")[n]) for n, d in dense(stays, "ab").items())
        assert not all(torch.equal(d, dense(step, "gh")[n]) for n, d in dense(stays, "gh").items())


def test_all_targets_stop_at_the_average_of_their_sum(sd1):
    """Alg. 2, lines 24 to 27."""
    both, context = request(TARGET, SECOND), Images()
    SepME().erase(sd1, both, SepMEConfig(**QUICK), context)
    average = context.losses[0]  # without a penalty the loss is the weighted sum
    for point in context.curve[1:]:
        average = 0.9 * average + 0.1 * point["loss"]
        assert point["momentum"] == pytest.approx(average, rel=1e-5)
    small = Images()
    erasure = SepME().erase(sd1, both, SepMEConfig(**{**QUICK, "tau": {"ab": 1e9, "gh": -1e9}}), small)
    assert len(small.losses) == 3 and all(dense(erasure, c) for c in ("ab", "gh"))  # the smallest threshold counts
    for check, steps in (("before", 2), ("after", 3)):
        stopped = SepME().erase(sd1, both, SepMEConfig(**{**QUICK, "steps": 9, "tau": 1e9, "min_steps": 2, "check": check}), Images())
        assert stopped.weights_hash() == SepME().erase(sd1, both, SepMEConfig(**{**QUICK, "steps": steps}), Images()).weights_hash()


def test_capacity_is_checked_before_anything_starts(sd1):
    config = SepMEConfig(**QUICK)
    four, five, untouched = request(TARGET, SECOND, *MORE[:2]), request(TARGET, SECOND, *MORE), Images()
    for run in (lambda: SepME.check(sd1, five, config), lambda: SepME().erase(sd1, five, config, untouched)):
        with pytest.raises(
            UserInputError, match=r"'ab' cannot be erased apart from 4 other prompts: .* span 32 of .* 32 dimensions.* 3 other prompts always fit"
        ) as error:
            run()
        assert "fewer targets" in error.value.hint
    assert untouched.asked == []
    SepME.check(sd1, four, config)
    with pytest.raises(UserInputError, match="other prompts"):
        SepME.check(sd1, four, SepMEConfig(**QUICK, protect="retained"))
    with pytest.raises(UserInputError, match="tau has no threshold for gh"):
        SepME.check(sd1, request(TARGET, SECOND), SepMEConfig(**{**QUICK, "tau": {"ab": 0.0}}))


def test_only_keys_and_values():
    with pytest.raises(ValueError, match="kv"):
        SepMEConfig(parameters="xattn")


def test_the_first_of_targets_in_turn_by_gcirs(sd1):
    own = {"steps": 2, "batch": 1, "lr": 1e-3, "images": 4, "tau": -1e9, "correlation": "cosine"}
    options = {**QUICK, "first": "gcirs", "first_options": own}
    first = SepME().erase(sd1, request(TARGET), SepMEConfig(**options), Images())
    assert first.concepts() == ["ab"] and set(dense(first, "ab")) == set(select(sd1.unet, "xattn"))
    expected = GCiRs().erase(sd1, request(TARGET), GCiRsConfig(**own), Images()).changes[0].tensors
    assert all(torch.equal(d, expected[n]) for n, d in dense(first, "ab").items())
    later = SepME().erase(sd1, EraseRequest((SECOND,), (), SAMPLER, others=(TARGET,)), SepMEConfig(**options), Images())
    assert set(dense(later, "gh")) == set(select(sd1.unet, "kv"))


@pytest.mark.parametrize("preset", ["paper", "released", "mini"])
def test_the_presets_of_the_first_are_those_of_gcirs(preset):
    first = resolve(f"sepme:{preset}", family="sd1", tier="mini").config.first_options
    assert first == resolve(f"gcirs:{preset}", family="sd1", tier="mini").config
    assert SepME.supports.independent and SepME.supports.heeds_others


def test_seed_resume_and_file(sd1, tmp_path):
    config = SepMEConfig(**{**QUICK, "steps": 5})
    both, whole = request(TARGET, SECOND), Images()
    expected = SepME().erase(sd1, both, config, whole)
    assert expected.weights_hash() != SepME().erase(sd1, both, config, Images(2)).weights_hash()
    erasure, resumed = stopped_and_resumed(lambda context: SepME().erase(sd1, both, config, context), 2)
    assert erasure.weights_hash() == expected.weights_hash()
    assert resumed.curve == whole.curve[2:]
    expected.save(tmp_path / "e.safetensors")
    assert Erasure.load(tmp_path / "e.safetensors").weights_hash() == expected.weights_hash()


@pytest.mark.parametrize("more", [{"check": "before"}, {"check": "after"}, {"check": "after", "accumulate": True}])
def test_resumed_with_one_target_down_and_another_basis(sd1, monkeypatch, more):
    """The basis of a null space is any rotation of it, on another machine another: what goes on has the one that it began with."""
    config = SepMEConfig(**{**QUICK, "steps": 5, "lr": 0.1, "tau": {"ab": 1e9, "gh": -1e9}, "stop": "each", "min_steps": 1, **more})
    both, whole, interrupted = request(TARGET, SECOND), Images(), Interrupted(3)
    expected = SepME().erase(sd1, both, config, whole)
    with pytest.raises(Stopped):
        SepME().erase(sd1, both, config, interrupted)
    assert interrupted.kept[0].tensors["state/done"].tolist() == [1, 0]
    svd = torch.linalg.svd

    def rotated(a, full_matrices=True):
        left, values, right = svd(a, full_matrices=full_matrices)
        free = slice(len(right) - 4, None)  # so many directions are free at least
        turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
        return left, values, torch.cat([right[: free.start], turn @ right[free]])

    monkeypatch.setattr(torch.linalg, "svd", rotated)
    resumed = Resumed(interrupted)
    erasure = SepME().erase(sd1, both, config, resumed)
    assert erasure.weights_hash() == expected.weights_hash() and resumed.curve == whole.curve[3:]
    assert SepME().erase(sd1, both, config, Images()).weights_hash() != expected.weights_hash()  # coefficients of another basis train otherwise


def test_whoever_watches_sees_the_targets_changes(sd1):
    """At every step the base answers as the erasure of so many steps does, with what came down as well."""
    x, t, texts = sd1.initial_noise([1, 3]), torch.tensor([500, 20]), sd1.encode(["ab", "gh"])

    class Watching(Images):
        def progress(self, *args, **kwargs):
            super().progress(*args, **kwargs)
            self.seen = [*getattr(self, "seen", []), sd1.predict(x, t, texts).detach()]

    options = {**QUICK, "tau": {"ab": 1e9, "gh": -1e9}, "stop": "each", "min_steps": 1}
    context = Watching()
    SepME().erase(sd1, request(TARGET, SECOND), SepMEConfig(**options), context)
    plain = sd1.predict(x, t, texts)
    for n, seen in enumerate(context.seen, 1):
        with SepME().erase(sd1, request(TARGET, SECOND), SepMEConfig(**{**options, "steps": n}), Images()).applied(sd1):
            assert torch.allclose(seen, sd1.predict(x, t, texts), atol=1e-5), n
        assert bool(((seen - plain).abs().amax((1, 2, 3)) > 1e-3).all()), n


def test_loss_falls(sd1):
    context = Images()
    SepME().erase(sd1, request(retained=()), SepMEConfig(**{**QUICK, "steps": 8}), context)
    assert_falls(context.losses, 3)


def test_load_counts_the_empty_prompt_once():
    load = SepME.load(SepMEConfig(steps=10, batch=3), 2)
    assert (load.plain, load.trained, load.batch, load.parameters, load.images) == (120, 60, 6, "kv", 200)
    first = SepMEConfig(first="gcirs", first_options={"steps": 5, "batch": 2, "images": 7})
    assert SepME.load(first, 1) == GCiRs.load(first.first_options, 1) and SepME.load(first, 2).parameters == "kv"
