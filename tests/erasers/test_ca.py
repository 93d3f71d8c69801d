from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from erasing import TARGET, Images, assert_base_untouched, assert_changes_only, assert_falls, assert_seeded, request, snapshot, stopped_and_resumed

from conceptbench.core.errors import UserInputError
from conceptbench.core.schemas import Concept
from conceptbench.erasers.ca import CAConfig, ConceptAblation, Pictures, start_detached, text_pairs
from conceptbench.erasers.shared.spans import anchor_text
from conceptbench.models.groups import select

QUICK = {"steps": 2, "batch": 3, "lr": 1e-3, "images": 4}
NO_ANCHOR = Concept(name="mk", kind="explicit", phrases=("ab", "cd"), templates=("{}", "a e with {}", "a {} at f"))


def by_hand(base, config, steps=1, seed=1, target=TARGET):
    """Steps with the denoiser called directly, Adam's by torch: (losses, changes by name, gradients of the first step)."""
    pictures = Pictures(base, Images(seed), [target], config)
    parameters = select(base.unet, config.parameters)
    originals = {n: p.detach().clone() for n, p in parameters.items()}
    adam = torch.optim.Adam(parameters.values(), config.lr)
    losses, first = [], {}
    for _ in range(steps):
        b, targets, anchors = pictures.draw()
        a = base.alphas[b.t].view(-1, 1, 1, 1)
        noisy = a.sqrt() * b.x + (1 - a).sqrt() * b.noise
        noise = a.sqrt() * b.noise - (1 - a).sqrt() * b.x if base.info.family == "sd2" else b.noise
        for p in parameters.values():
            p.requires_grad_(True)
        with start_detached(base, active=config.detach_start):
            target_out, anchor_out = (base.predict(noisy, b.t, base.encode(texts), to="native") for texts in (targets, anchors))
        fixed = anchor_out.detach()
        if config.teacher == "frozen":
            with torch.no_grad(), base.swapped(originals):
                fixed = base.predict(noisy, b.t, base.encode(anchors), to="native")
        erased = ((target_out - (fixed if config.goal == "model" else noise)) ** 2).mean()
        prior = ((anchor_out - (fixed if config.teacher == "frozen" else noise)) ** 2).mean()
        total = erased + config.prior * prior
        gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        for p, g in zip(parameters.values(), gradients, strict=True):
            p.grad = g
        adam.step()
        losses.append(total.item())
        first = first or {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(parameters.items(), gradients, strict=True)}
    changes = {n: p.detach() - originals[n] for n, p in parameters.items()}
    for n, p in parameters.items():
        p.requires_grad_(False)
        p.grad, p.data = None, originals[n]
    return losses, changes, first


@pytest.mark.parametrize(
    "options", [{}, {"goal": "noise"}, {"prior": 0.7}, {"goal": "noise", "prior": 0.7}, {"detach_start": False}, {"teacher": "frozen", "prior": 10.0}]
)
def test_first_step_equals_autograd_by_hand(base, options):
    """Adam's first step is lr * sign(gradient); the gradient and the loss are computed here from the formula."""
    config = CAConfig(**{**QUICK, "steps": 1, "lr": 1e-4, "optimiser": "adam", "weight_decay": 0.0, "clip": None, **options})
    context = Images()
    before = snapshot(base)
    erasure = ConceptAblation().erase(base, request(), config, context)
    assert_base_untouched(base, before)
    losses, _, gradients = by_hand(base, config)
    assert context.losses == pytest.approx(losses, rel=1e-4)
    for name, change in erasure.changes[0].tensors.items():
        g = gradients[name]
        sure = g.abs() > 1e-6
        assert torch.allclose(change[sure], (-1e-4 * g / (g.abs() + 1e-8))[sure], atol=4e-6), name


@pytest.mark.parametrize("options", [{"teacher": "frozen", "prior": 10.0}, {"teacher": "frozen"}, {"prior": 0.7}])
def test_second_step_by_hand(base, options):
    """At the first step every teacher is the student; by the second the frozen one has stayed behind."""
    config = CAConfig(**{**QUICK, "lr": 1e-2, "optimiser": "adam", "weight_decay": 0.0, "clip": None, **options})
    context = Images()
    erasure = ConceptAblation().erase(base, request(), config, context)
    losses, changes, gradients = by_hand(base, config, steps=2)
    assert context.losses == pytest.approx(losses, rel=1e-3)
    for name, change in erasure.changes[0].tensors.items():
        sure = gradients[name].abs() > 1e-2 * gradients[name].abs().max()  # where it is almost zero, Adam's first steps are ill-conditioned
        assert torch.isclose(change, changes[name], atol=1e-3)[sure].float().mean() > 0.97, name


def test_images_are_of_the_anchor_and_prompts_fit_them(sd1):
    config = CAConfig(**{**QUICK, "images": 6, "batch": 40})
    context = Images()
    other = Concept(name="gh", kind="object", phrases=("gh", "hg"), templates=("{}", "f {}"), anchor="e")
    pictures = Pictures(sd1, context, [TARGET, other], config)
    assert [(c.texts(), n) for c, n, _ in context.asked] == [(["cd", "a cd"], 6), (["e", "f e"], 6)]
    b, targets, anchors = pictures.draw()
    assert anchors == b.texts
    assert set(zip(targets, anchors, strict=True)) == {("ab", "cd"), ("a ab", "a cd"), ("gh", "e"), ("hg", "e"), ("f gh", "f e"), ("f hg", "f e")}
    for i, anchor in zip(b.index.tolist(), anchors, strict=True):
        assert anchor == [["cd", "a cd"], ["e", "f e"]][i // 6][i % 2]
    own = Pictures(sd1, Images(), [TARGET], config.model_copy(update={"pictures": "target"})).draw()
    assert own[1] == own[0].texts and set(zip(own[1], own[2], strict=True)) == {("ab", "cd"), ("a ab", "a cd")}


def test_texts_without_an_anchor():
    cases = {
        "a photo of a person with {}": "a photo of a person",
        "a {} picture of a boat": "a picture of a boat",
        "a tree in {} style": "a tree",
        "a cup in the style of {}": "a cup",
        "a person, {}": "a person",
        "a cat with a {}": "a cat",
        "there is {} here": "there is here",
        "a photo of {} at the fair": "a photo at the fair",
        "{}": "",
    }
    assert {t: anchor_text(t, "") for t in cases} == cases
    assert anchor_text("a photo of {} at the fair", "", cut=True) == "a photo"
    assert anchor_text("a photo of {} at the fair", "a cat", cut=True) == "a photo of a cat at the fair"
    assert text_pairs(NO_ANCHOR, CAConfig(texts=2)) == [("ab", ""), ("a e with ab", "a e"), ("cd", ""), ("a e with cd", "a e")]


def test_an_explicit_concept_shares_the_images_of_its_phrases(sd1):
    context = Images()
    ConceptAblation().erase(sd1, request(NO_ANCHOR), CAConfig(**QUICK), context)
    assert [c.texts() for c, _, _ in context.asked] == [["", "a e", "a at f"]]


@pytest.mark.parametrize(("variant", "group"), [("", "kv"), ("noise", "kv"), ("xattn", "xattn"), ("attn", "attn"), ("full", "full")])
def test_only_the_variants_parameters_change(sd1, variant, group):
    config = CAConfig(**{**QUICK, **ConceptAblation.variants[variant]})
    assert_changes_only(sd1, lambda: ConceptAblation().erase(sd1, request(), config, Images()), group)
    assert not any(m._forward_hooks for m in sd1.unet.modules())


def test_a_target_that_is_its_anchor_has_no_gradient(sd1):
    same = TARGET.model_copy(update={"anchor": "ab"})
    erasure = ConceptAblation().erase(sd1, request(same), CAConfig(**QUICK, optimiser="adam", weight_decay=0.0), Images())
    assert erasure.changes[0].tensors == {}
    for config in (CAConfig(), CAConfig(goal="noise")):
        with pytest.raises(UserInputError, match="the anchor of 'ab' is 'ab', its own phrase"):
            ConceptAblation.check(sd1, request(same), config)
    ConceptAblation.check(sd1, request(TARGET, NO_ANCHOR.model_copy(update={"phrases": ("x",)})), CAConfig())


def test_an_anchor_that_is_erased_too_is_refused(sd1):
    """Whatever its case and article, also where another part of the erasure erases it."""
    anchored = TARGET.model_copy(update={"anchor": "a Cd "})
    other = Concept(name="other", kind="object", phrases=("x", "the cd"), anchor="y")
    for asked in (request(anchored, other), replace(request(anchored), others=(other,))):
        with pytest.raises(UserInputError, match="the anchor of 'ab' is 'a Cd ', a phrase of 'other'") as error:
            ConceptAblation.check(sd1, asked, CAConfig())
        assert "another anchor" in error.value.hint
    ConceptAblation.check(sd1, request(anchored, retained=(other,)), CAConfig())


@pytest.mark.parametrize("active", [True, False])
def test_start_token_gives_no_gradient_and_the_same_prediction(sd1, active):
    x, t, encoded = torch.randn(1, 4, 8, 8), torch.tensor([500]), sd1.encode(["ab"])
    plain = sd1.predict(x, t, encoded)
    hidden = encoded.hidden.clone().requires_grad_(True)
    with start_detached(sd1, active=active):
        out = sd1.predict(x, t, type(encoded)(hidden))
        assert torch.equal(out, plain)
        (gradient,) = torch.autograd.grad(out.square().sum(), hidden)
    assert bool(gradient[0, 0].any()) is not active and bool(gradient[0, 1].any())


def test_frozen_teacher_differs_from_the_current_one_after_a_step(sd1):
    """One step is the same for both; in the second the current model's own prediction for the anchor has moved."""
    options = {**QUICK, "lr": 1e-1}
    losses = {}
    for teacher in ("self", "frozen"):
        context = Images()
        ConceptAblation().erase(sd1, request(), CAConfig(**options, teacher=teacher), context)
        losses[teacher] = context.losses
    assert losses["self"][0] == losses["frozen"][0] and losses["self"][1] != pytest.approx(losses["frozen"][1], rel=1e-3)


def test_same_seed_same_bytes_loss_falls_and_multiple_targets(sd1):
    config = CAConfig(**{**QUICK, "steps": 30})
    erasure, context = assert_seeded(lambda context: ConceptAblation().erase(sd1, request(), config, context))
    assert_falls(context.losses, 8)
    assert erasure.weights_hash() != ConceptAblation().erase(sd1, request(TARGET, NO_ANCHOR), config, Images(1)).weights_hash()


def test_goes_on_to_the_same_bytes(sd1):
    config = CAConfig(**{**QUICK, "steps": 5, "accumulate": True, "teacher": "frozen", "prior": 10.0})
    whole = ConceptAblation().erase(sd1, request(), config, Images())
    resumed, _ = stopped_and_resumed(lambda context: ConceptAblation().erase(sd1, request(), config, context), 2)
    assert resumed.weights_hash() == whole.weights_hash()


@pytest.mark.parametrize("spec", ["ca:paper", "ca:released", "ca-noise:mini", "ca:sepme", "ca-full:paper"])
def test_shipped_presets(spec):
    from conceptbench.engine.lineup import resolve

    config = resolve(spec, family="sd1", tier="paper").config
    assert config.parameters == ("full" if "full" in spec else "kv")
    assert (config.prior, config.teacher, config.accumulate) == ((10.0, "frozen", True) if "sepme" in spec else (0.0, "self", False))
    assert config.goal == ("noise" if "noise" in spec else "model")
    load = ConceptAblation.load(config, 2)
    assert load.trained == config.steps * config.batch * (2 if config.prior else 1) and load.images == 2 * config.images


@pytest.mark.parametrize("options", [{}, {"goal": "noise"}, {"prior": 0.7}, {"goal": "noise", "prior": 0.7}, {"teacher": "frozen", "prior": 10.0}])
def test_load_counts_rows_and_images(sd1, options):
    config, context = CAConfig(**QUICK, **options), Images()
    sd1.evaluations = 0
    ConceptAblation().erase(sd1, request(), config, context)
    said = ConceptAblation.load(config, 1)
    assert sd1.evaluations == said.plain + said.trained and said.images == sum(n for _, n, _ in context.asked)
