from __future__ import annotations

import pytest
import torch
from erasing import TARGET, PlainContext, assert_base_untouched, assert_changes_only, assert_falls, assert_seeded, request, snapshot, stopped_and_resumed

from conceptbench.core.schemas import Concept
from conceptbench.erasers.sdd import SDD, Points, SDDConfig
from conceptbench.models.groups import select
from conceptbench.models.schedulers import make_scheduler

QUICK = {"steps": 3, "batch": 2, "lr": 1e-3, "denoising_steps": 4, "bank": 4}
OTHER = Concept(name="gh", kind="object", phrases=("gh",), templates=("{}",))
PLAIN = {"optimiser": "adam", "weight_decay": 0.0, "clip": None}


def values(base):
    return {n: p.detach().clone() for n, p in select(base.unet, "xattn").items()}


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("latents", ["current", "base"])
@pytest.mark.parametrize("teacher", ["self", "frozen"])
def test_one_step_equals_autograd_by_hand(base, latents, guidance, teacher):
    """Adam's first step is lr * sign(gradient), and the average moves by 1 - ema of it."""
    config = SDDConfig(**{**QUICK, **PLAIN, "steps": 1, "lr": 1e-4, "latents": latents, "start_guidance": guidance, "teacher": teacher, "ema": 0.75})
    before = snapshot(base)
    erasure = SDD().erase(base, request(), config, PlainContext(3))
    assert_base_untouched(base, before)
    b, _ = Points(base, PlainContext(3), request(), config, {}).draw(0, {})
    parameters = select(base.unet, "xattn")
    for p in parameters.values():
        p.requires_grad_(True)
    goal = base.predict(b.x_t, b.t, base.encode_unconditional(["", ""])).detach()
    loss = ((base.predict(b.x_t, b.t, base.encode(["ab", "ab"])) - goal) ** 2).mean()
    gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values()), allow_unused=True), strict=True))
    for p in parameters.values():
        p.requires_grad_(False)
    assert len(erasure.changes[0].tensors) > 0.5 * len(parameters)
    for name, change in erasure.changes[0].tensors.items():
        g = gradients[name]
        sure = g.abs() > 1e-6
        assert torch.allclose(change[sure], (-1e-4 * 0.25 * g / (g.abs() + 1e-8))[sure], atol=2e-6), name


@torch.no_grad()
def unconditional(base, seeds, k):
    """DDIM steps without a prompt, written out; SDXL's answer to none is not that to the empty prompt."""
    x = base.initial_noise(seeds)
    scheduler = make_scheduler(base.pipeline.scheduler, "ddim")
    scheduler.set_timesteps(4)
    for t in scheduler.timesteps[:k]:
        out = base.predict(x, t, base.encode_unconditional([""] * len(seeds)), to="native")
        x = scheduler.step(out, t, x).prev_sample
    return x


def test_points_come_from_the_average_and_the_goal_from_the_teacher(base):
    config = SDDConfig(**QUICK)
    originals = values(base)
    average = {n: v + 0.2 for n, v in originals.items()}
    teacher = {n: v - 0.1 for n, v in originals.items()}
    b, goal = Points(base, PlainContext(8), request(), config, average).draw(0, teacher)
    generator = torch.Generator().manual_seed(8)
    k = int(torch.randint(4, (1,), generator=generator))
    seeds = [2 * int(i) + 1 for i in torch.randint(2**40, (2,), generator=generator)]
    with base.swapped(average):
        expected = unconditional(base, seeds, k)
    assert k > 0 and torch.allclose(b.x_t, expected, atol=2e-4)
    assert not torch.allclose(b.x_t, unconditional(base, seeds, k), atol=2e-4)
    with torch.no_grad(), base.swapped(teacher):
        assert torch.allclose(goal, base.predict(b.x_t, b.t, base.encode_unconditional(["", ""])), atol=1e-5)
    assert b.texts == ["ab", "ab"]


def test_a_bank_without_guidance_is_unconditional(base):
    points = Points(base, PlainContext(5), request(), SDDConfig(**QUICK, latents="base"), {})
    seeds = [2 * int(i) + 1 for i in torch.randint(2**40, (4,), generator=torch.Generator().manual_seed(5))]
    assert torch.allclose(points.trajectories.bank.x[2], unconditional(base, seeds, 2), atol=2e-4)


@pytest.mark.parametrize("where", [{}, {"latents": "base"}, {"latents": "base", "start_guidance": 3.0}])
def test_order_of_the_texts(sd1, where):
    def batches(order, steps=2, **options):
        points = Points(sd1, PlainContext(), request(TARGET, OTHER), SDDConfig(**{**QUICK, "batch": 3, **where}, order=order, **options), values(sd1))
        found = [points.draw(i, {})[0] for i in range(steps)]
        bank = points.trajectories.bank
        for b in found if bank else []:  # on a trajectory of its text
            for text, x in zip(b.texts, b.x_t, strict=True):
                assert any(torch.equal(x, bank.x[k, i]) for k in range(4) for i in range(len(bank.texts)) if bank.texts[i] == text)
        return [b.texts for b in found]

    assert batches("iterative") == [["ab", "gh", "ab"], ["gh", "ab", "gh"]]
    assert batches("iterative", 1, texts=2) == [["ab", "a ab", "gh"]]
    assert batches("composite", 1) == [["ab, gh"] * 3]
    assert {t for row in batches("random", 4) for t in row} == {"ab", "gh"}


def test_the_average_follows_the_student(sd1):
    """With decay 0 it is the student; with decay d the recursion over the students' values after each step."""
    students = []

    class Watching(PlainContext):
        def progress(self, step, total, loss, *, prompt=None, **found):
            super().progress(step, total, loss)
            students.append(values(sd1))

    config = SDDConfig(**QUICK, latents="base", ema=0.6)  # x_t from the bank: the student does not depend on the average
    originals = values(sd1)
    changes = SDD().erase(sd1, request(), config, Watching()).changes[0].tensors
    expected = dict(originals)
    for student in students:
        expected = {n: 0.6 * v + 0.4 * student[n] for n, v in expected.items()}
    for name, change in changes.items():
        assert torch.allclose(originals[name] + change, expected[name], atol=1e-7), name
    bare = SDD().erase(sd1, request(), config.model_copy(update={"ema": 0.0}), PlainContext()).changes[0].tensors
    assert all(torch.allclose(originals[n] + c, students[-1][n], atol=1e-7) for n, c in bare.items())


def test_frozen_and_current_teachers_part_ways_after_the_first_step(sd1):
    """The empty prompt's own prediction moves with the weights, so that only the first loss is the same."""
    losses = {}
    for teacher in ("self", "frozen"):
        context = PlainContext()
        SDD().erase(sd1, request(), SDDConfig(**{**QUICK, "lr": 1e-1}, latents="base", teacher=teacher), context)
        losses[teacher] = context.losses
    assert losses["self"][0] == pytest.approx(losses["frozen"][0], rel=1e-3) and losses["self"][2] != pytest.approx(losses["frozen"][2], rel=1e-3)


@pytest.mark.parametrize(("variant", "group"), [("x", "xattn"), ("u", "noxattn"), ("full", "full")])
def test_only_the_variants_parameters_change(sd1, variant, group):
    assert_changes_only(sd1, lambda: SDD().erase(sd1, request(), SDDConfig(**{**QUICK, **SDD.variants[variant]}), PlainContext()), group)


def test_same_seed_same_bytes_and_loss_falls(sd1):
    config = SDDConfig(**{**QUICK, "steps": 24, "latents": "base"})
    _, context = assert_seeded(lambda context: SDD().erase(sd1, request(), config, context))
    assert_falls(context.losses, 6)


def test_goes_on_to_the_same_bytes(sd1):
    config = SDDConfig(**{**QUICK, "steps": 5, "ema": 0.5})
    whole = SDD().erase(sd1, request(TARGET, OTHER), config, PlainContext())
    resumed, _ = stopped_and_resumed(lambda context: SDD().erase(sd1, request(TARGET, OTHER), config, context), 2)
    assert resumed.weights_hash() == whole.weights_hash()


@pytest.mark.parametrize(
    ("spec", "wanted"), [("sdd:paper", ("self", 0.999, 1500)), ("sdd-u:released", ("self", 0.999, 1500)), ("sdd:sepme", ("frozen", 0.999, 1500))]
)
def test_shipped_presets(spec, wanted):
    from conceptbench.engine.lineup import resolve

    config = resolve(spec, family="sd1", tier="paper").config
    assert (config.teacher, config.ema, config.steps) == wanted and (config.lr, config.weight_decay, config.clip) == (1e-5, 1e-4, 1.0)
    assert SDD.load(config, 1).plain == 1500 * 52 and SDD.load(config.model_copy(update={"start_guidance": 3.0}), 1).plain == 1500 * 52
    mini = resolve("sdd:mini", family="sd1", tier="mini").config
    assert SDD.load(mini, 1).plain == mini.bank * 20 + mini.steps * mini.batch


@pytest.mark.parametrize("options", [{}, {"start_guidance": 3.0}, {"teacher": "frozen"}])
def test_load_counts_rows(sd1, options):
    config = SDDConfig(**QUICK, latents="base", **options)
    sd1.evaluations = 0
    SDD().erase(sd1, request(), config, PlainContext())
    said = SDD.load(config, 1)
    assert sd1.evaluations == said.plain + said.trained
