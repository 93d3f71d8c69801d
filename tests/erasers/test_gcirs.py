from __future__ import annotations

import pytest
import torch
from correlating import SECOND, delta
from erasing import (
    KEPT,
    TARGET,
    Images,
    Interrupted,
    Resumed,
    Stopped,
    assert_base_untouched,
    assert_falls,
    assert_seeded,
    request,
    snapshot,
    stopped_and_resumed,
)

from conceptbench.core.errors import UserInputError
from conceptbench.erasers.gcirs import GCiRs, GCiRsConfig
from conceptbench.erasers.shared.correlation import ConceptImages, Momentum, balanced, correlations, l1_per_layer
from conceptbench.models.groups import select

QUICK = {"steps": 3, "batch": 2, "lr": 1e-3, "images": 4, "l1": 0.0, "tau": -1e9}


def first_batch(base, config, *targets, seed=1):
    context = Images(seed)
    return ConceptImages.of(base, context, targets, config).draw(base, range(len(targets)), config.batch, context.generator)


def test_correlation_by_hand():
    original = torch.tensor([[1.0, 2.0], [0.0, 3.0], [1.0, 1.0], [2.0, 0.0]]).view(4, 1, 1, 2)
    unlearned = torch.tensor([[1.0, -1.0], [5.0, 1.0], [-1.0, -1.0], [0.0, 7.0]]).view(4, 1, 1, 2)
    losses, norms = correlations(original, unlearned, 2)
    assert losses.tolist() == [(1 - 2 + 0 + 3) / 4, (-1 - 1 + 0 + 0) / 4]
    assert torch.allclose(norms, torch.tensor([14.0, 2.0]).sqrt())  # 1 + 4 + 9, and 1 + 1
    cosine, _ = correlations(original, unlearned, 2, "cosine")
    assert torch.allclose(cosine, torch.tensor([(-1 / 10**0.5 + 1 / 26**0.5) / 2, (-1 + 0) / 2]))


def test_eta_by_hand_is_a_constant():
    losses, norms = torch.tensor([2.0, -4.0, 0.5], requires_grad=True), torch.tensor([3.0, 1.0, 6.0])
    weighted = balanced(losses, norms, "loss")  # eta = 2 / 2, 2 / 4, 2 / 0.5
    assert weighted.tolist() == [2.0, -2.0, 2.0]
    assert torch.autograd.grad(weighted.sum(), losses)[0].tolist() == [1.0, 0.5, 4.0]
    assert balanced(losses, norms, "product").tolist() == [2.0, -12.0, 0.25]  # 3 / 3, 3 / 1, 3 / 6
    assert balanced(losses, norms, "equal").tolist() == [2.0, -4.0, 0.5]


def test_l1_and_its_subgradient():
    layers = [torch.tensor([[1.0, -2.0], [0.0, 4.0]], requires_grad=True), torch.tensor([-3.0], requires_grad=True)]
    value = l1_per_layer(layers)
    assert value == (1 + 2 + 4 + 3) / 2
    first, second = torch.autograd.grad(value, layers)
    assert first.tolist() == [[0.5, -0.5], [0.0, 0.5]] and second.tolist() == [-0.5]


def test_momentum_stops_on_a_scripted_sequence():
    losses = [1.0, 0.0, -1.0, -2.0, -3.0, -3.0]
    expected, average = [], losses[0]
    for n, value in enumerate(losses):
        average = value if n == 0 else 0.9 * average + 0.1 * value
        expected.append(average)
    assert [v <= 0 for v in expected] == [False, False, False, False, False, True]  # 1, .9, .71, .439, .0951, -.21441
    momentum = Momentum([0.0], GCiRsConfig())
    for n, value in enumerate(losses):
        momentum.update(n, torch.tensor([value]))
        assert momentum.state["average"].item() == pytest.approx(expected[n], abs=1e-12)
        assert (momentum.open() == []) == (n == 5)
    late = Momentum([10.0], GCiRsConfig(min_steps=3))
    ended = []
    for n in range(4):
        late.update(n, torch.tensor([1.0]))
        ended.append(not late.open())
    assert ended == [False, False, False, True]


def test_momentum_of_several_at_thresholds_of_their_own():
    momentum = Momentum([0.0, -5.0], GCiRsConfig(momentum=0.5))
    momentum.update(0, torch.tensor([-1.0, 4.0]))
    assert momentum.open() == [1]
    momentum.update(1, torch.tensor([0.0]))  # only the open one's
    assert momentum.state["average"].tolist() == [-1.0, 2.0]
    momentum.update(2, torch.tensor([-13.0]))
    assert momentum.state["average"].tolist() == [-1.0, -5.5] and momentum.open() == []


def test_first_loss_is_the_mean_square_of_the_representation(base):
    config = GCiRsConfig(**{**QUICK, "steps": 1})
    context = Images()
    GCiRs().erase(base, request(), config, context)
    with torch.no_grad():
        expected = float((delta(base, first_batch(base, config, TARGET)) ** 2).mean())
    assert expected > 0 and context.losses[0] == pytest.approx(expected, rel=1e-4)
    assert context.curve[0]["momentum"] == context.curve[0]["correlation"] == pytest.approx(context.losses[0])


def test_one_step_of_two_targets_equals_autograd_by_hand(sd1):
    """The norm of the gradient (a teacher that is not detached doubles it) and Adam's first step, lr * sign(gradient)."""
    config = GCiRsConfig(**{**QUICK, "steps": 1, "lr": 1e-4})
    context = Images()
    erasure = GCiRs().erase(sd1, request(TARGET, SECOND), config, context)
    batch = first_batch(sd1, config, TARGET, SECOND)
    assert batch[2] == ["ab", "ab", "gh", "gh"]
    parameters = select(sd1.unet, "xattn")
    for p in parameters.values():
        p.requires_grad_(True)
    now = delta(sd1, batch)
    one, two = (now.detach() * now).view(2, -1).mean(1)
    gradients = dict(zip(parameters, torch.autograd.grad(one + (one / two).detach() * two, list(parameters.values())), strict=True))
    for p in parameters.values():
        p.requires_grad_(False)
    assert context.losses[0] == pytest.approx(2 * float(one.detach()), rel=1e-4)
    assert context.curve[0]["gradient_norm"] == pytest.approx(float(torch.cat([g.flatten() for g in gradients.values()]).norm()), rel=1e-4)
    for name, change in erasure.changes[0].tensors.items():
        g = gradients[name]
        clear = g.abs() > 1e-6
        assert torch.allclose(change[clear], -1e-4 * (g / (g.abs() + 1e-8))[clear], atol=3e-6), name


def test_a_target_that_came_down_is_not_followed_in_that_step(sd1):
    """``before``: the gradient is of the other target's loss alone, at a weight of 1; ``after`` the step it is still of both."""
    config = {**QUICK, "steps": 1, "tau": {"ab": 1e9, "gh": -1e9}, "stop": "each"}
    left, both = Images(), Images()
    GCiRs().erase(sd1, request(TARGET, SECOND), GCiRsConfig(**config), left)
    GCiRs().erase(sd1, request(TARGET, SECOND), GCiRsConfig(**config, check="after"), both)
    batch = first_batch(sd1, GCiRsConfig(**config), TARGET, SECOND)
    parameters = list(select(sd1.unet, "xattn").values())
    for p in parameters:
        p.requires_grad_(True)
    now = delta(sd1, batch)
    one, two = (now.detach() * now).view(2, -1).mean(1)
    alone, sum_of_both = (
        torch.cat([g.flatten() for g in torch.autograd.grad(v, parameters, retain_graph=True)]).norm() for v in (two, one + (one / two).detach() * two)
    )
    for p in parameters:
        p.requires_grad_(False)
    assert left.losses[0] == pytest.approx(float(two.detach()), rel=1e-4) and left.curve[0]["gradient_norm"] == pytest.approx(float(alone), rel=1e-4)
    assert both.losses[0] == pytest.approx(2 * float(one.detach()), rel=1e-4) and both.curve[0]["gradient_norm"] == pytest.approx(float(sum_of_both), rel=1e-4)


def test_second_loss_correlates_with_the_frozen_model_and_adds_the_norm(sd1):
    config = {**QUICK, "steps": 1, "lr": 1e-2, "l1": 0.7}
    once = GCiRs().erase(sd1, request(), GCiRsConfig(**config), Images())
    context = Images()
    GCiRs().erase(sd1, request(), GCiRsConfig(**{**config, "steps": 2}), context)
    replay = Images()
    images = ConceptImages.of(sd1, replay, [TARGET], GCiRsConfig(**config))
    images.draw(sd1, [0], 2, replay.generator)
    batch = images.draw(sd1, [0], 2, replay.generator)
    with torch.no_grad():
        frozen = delta(sd1, batch)
        with once.applied(sd1):
            moved = delta(sd1, batch)
    changed = once.changes[0].tensors
    norm = sum(float(d.abs().sum()) for d in changed.values()) / len(select(sd1.unet, "xattn"))
    correlation = float((frozen * moved).mean())
    assert abs(correlation - float((moved * moved).mean())) > 1e-4  # the teacher's part is visible
    assert context.curve[1]["correlation"] == pytest.approx(correlation, rel=1e-3)
    assert context.losses[1] == pytest.approx(correlation + 0.7 * norm, rel=1e-3)
    assert context.curve[1]["momentum"] == pytest.approx(0.9 * context.curve[0]["correlation"] + 0.1 * correlation, rel=1e-3)  # without the norm


@pytest.mark.parametrize(("variant", "group"), [("xattn", "xattn"), ("kv", "kv")])
def test_only_the_variants_parameters_change(base, variant, group):
    before = snapshot(base)
    erasure = GCiRs().erase(base, request(), GCiRsConfig(**{**QUICK, **GCiRs.variants[variant]}), Images())
    assert_base_untouched(base, before)
    assert len(erasure.changes) == 1 and set(erasure.changes[0].tensors) == set(select(base.unet, group))
    with erasure.applied(base):
        same = {n for n, p in base.unet.named_parameters() if torch.equal(p, before[n])}
    assert same == set(before) - set(select(base.unet, group))


def test_same_seed_same_bytes_and_loss_falls(sd1):
    config = GCiRsConfig(**{**QUICK, "steps": 8})
    _, context = assert_seeded(lambda context: GCiRs().erase(sd1, request(), config, context))
    assert_falls(context.losses, 3)


@pytest.mark.parametrize("more", [{"tau": -1e9}, {"tau": -1e9, "accumulate": True}, {"tau": 1e9, "min_steps": 2, "check": "after"}])
def test_an_interrupted_training_gives_the_same_bytes(sd1, more):
    config = GCiRsConfig(**{**QUICK, "steps": 5, **more})
    whole = Images()
    expected = GCiRs().erase(sd1, request(), config, whole)
    erasure, resumed = stopped_and_resumed(lambda context: GCiRs().erase(sd1, request(), config, context), 2)
    assert erasure.weights_hash() == expected.weights_hash()
    assert resumed.curve == whole.curve[2:]


@pytest.mark.parametrize("more", [{"check": "before"}, {"check": "after"}, {"check": "before", "accumulate": True}])
def test_resumed_with_one_target_down_and_one_open(sd1, more):
    config = GCiRsConfig(**{**QUICK, "steps": 5, "tau": {"ab": 1e9, "gh": -1e9}, "stop": "each", "min_steps": 1, **more})
    both, whole, interrupted = request(TARGET, SECOND), Images(), Interrupted(3)
    expected = GCiRs().erase(sd1, both, config, whole)
    with pytest.raises(Stopped):
        GCiRs().erase(sd1, both, config, interrupted)
    assert interrupted.kept[0].tensors["state/done"].tolist() == [1, 0]
    resumed = Resumed(interrupted)
    assert GCiRs().erase(sd1, both, config, resumed).weights_hash() == expected.weights_hash()
    assert resumed.curve == whole.curve[3:] and resumed.curve[0]["momentum ab"] == whole.curve[1]["momentum ab"]


def test_the_step_that_stops_is_taken_back_or_kept(sd1):
    stop = {**QUICK, "steps": 9, "tau": 1e9}
    context = Images()
    erasure = GCiRs().erase(sd1, request(), GCiRsConfig(**stop), context)
    assert len(context.losses) == 1 and not erasure.changes[0].tensors
    for min_steps in (0, 2):
        context = Images()
        after = GCiRs().erase(sd1, request(), GCiRsConfig(**stop, check="after", min_steps=min_steps), context)
        plain = GCiRs().erase(sd1, request(), GCiRsConfig(**{**QUICK, "steps": min_steps + 1}), Images())
        assert len(context.losses) == min_steps + 1 and after.weights_hash() == plain.weights_hash()
        before = GCiRs().erase(sd1, request(), GCiRsConfig(**stop, min_steps=min_steps), Images())
        assert min_steps == 0 or before.weights_hash() == GCiRs().erase(sd1, request(), GCiRsConfig(**{**QUICK, "steps": min_steps}), Images()).weights_hash()


def test_targets_stop_together_or_each_at_its_own(sd1):
    tau = {"ab": 1e9, "gh": -1e9}
    together, each = Images(), Images()
    GCiRs().erase(sd1, request(TARGET, SECOND), GCiRsConfig(**{**QUICK, "tau": tau}), together)
    assert len(together.losses) == 3 and "momentum" in together.curve[0]  # the smallest threshold counts
    GCiRs().erase(sd1, request(TARGET, SECOND), GCiRsConfig(**{**QUICK, "tau": tau, "stop": "each"}), each)
    assert len(each.losses) == 3 and {"momentum ab", "momentum gh"} <= each.curve[0].keys()
    assert each.curve[2]["momentum ab"] == each.curve[0]["momentum ab"] and each.curve[2]["momentum gh"] != each.curve[0]["momentum gh"]
    alone = Images()
    GCiRs().erase(sd1, request(TARGET, SECOND), GCiRsConfig(**{**QUICK, "tau": 1e9, "stop": "each"}), alone)
    assert len(alone.losses) == 1


def test_prompts_and_images_are_those_of_the_chosen_templates(sd1):
    context = Images()
    GCiRs().erase(sd1, request(), GCiRsConfig(**QUICK), context)
    assert [(c.texts(), n) for c, n, _ in context.asked] == [(["ab"], 4)]
    context = Images()
    GCiRs().erase(sd1, request(), GCiRsConfig(**QUICK, texts=2), context)
    assert [(c.texts(), n) for c, n, _ in context.asked] == [(["ab", "a ab"], 4)]


def test_a_threshold_is_missing(sd1):
    config = GCiRsConfig(**{**QUICK, "tau": {"ab": 0.0}})
    GCiRs.check(sd1, request(TARGET), config)
    for run in (lambda: GCiRs.check(sd1, request(TARGET, SECOND), config), lambda: GCiRs().erase(sd1, request(TARGET, SECOND), config, Images())):
        with pytest.raises(UserInputError, match=r"tau has no threshold for gh; it has: ab"):
            run()


def test_load_counts_both_models():
    load = GCiRs.load(GCiRsConfig(steps=10, batch=3), 2)
    assert (load.plain, load.trained, load.batch, load.parameters, load.images) == (120, 120, 12, "xattn", 200)
    assert KEPT.name not in {TARGET.name, SECOND.name}
