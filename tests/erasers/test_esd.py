from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from erasing import SAMPLER, TARGET, Images, PlainContext, assert_changes_only, assert_falls, assert_seeded, request

from conceptbench.erasers.esd import ESD, ESDConfig, esd_target
from conceptbench.erasers.shared.latents import TrajectoryBank, partly_denoised
from conceptbench.models.groups import select
from conceptbench.models.schedulers import make_scheduler

QUICK = {"steps": 3, "batch": 2, "lr": 1e-3, "denoising_steps": 4, "bank": 4}


def hand_trajectory(base, text, seed, steps, guidance, k):
    """A DDIM loop written out, one image, from the update's formula: the latent after k steps and its timestep."""
    t_all = make_scheduler(base.pipeline.scheduler, "ddim")
    t_all.set_timesteps(steps)
    alphas, stride = base.alphas, 1000 // steps
    x = base.initial_noise([seed])
    c, u = base.encode([text]), base.encode_unconditional([""])
    for t in t_all.timesteps[:k]:
        e_u, e_c = base.predict(x, t[None], u), base.predict(x, t[None], c)
        e = e_u + guidance * (e_c - e_u)
        a = alphas[t]
        previous = int(t) - stride
        a_prev = alphas[previous] if previous >= 0 else alphas[0]
        x0 = (x - (1 - a).sqrt() * e) / a.sqrt()
        x = a_prev.sqrt() * x0 + (1 - a_prev).sqrt() * e
    return x, t_all.timesteps[k]


def test_target_formula():
    cond, uncond = torch.tensor([3.0]), torch.tensor([1.0])
    assert esd_target(cond, uncond, 1.0) == -1.0  # 1 - 1 * (3 - 1)
    assert esd_target(cond, uncond, 0.0) == uncond
    # the released code's target with eta + 1, written with the conditional prediction first
    assert torch.equal(cond - 2.0 * (cond - uncond), esd_target(cond, uncond, 1.0))


@torch.no_grad()
def test_bank_lies_on_hand_written_trajectories(base):
    bank = TrajectoryBank(base, ["ab", "a ab"], 3, SAMPLER, PlainContext(5))
    seeds = [2 * int(i) + 1 for i in torch.randint(2**40, (3,), generator=torch.Generator().manual_seed(5))]
    for i, text in enumerate(["ab", "a ab", "ab"]):
        for k in range(4):
            x, t = hand_trajectory(base, text, seeds[i], 4, 3.0, k)
            assert torch.allclose(bank.x[k, i], x[0], atol=2e-4) and bank.t[k, i] == t
            assert torch.allclose(bank.cond[k, i], base.predict(x, t[None], base.encode([text]))[0], atol=2e-4)
            assert torch.allclose(bank.uncond[k, i], base.predict(x, t[None], base.encode_unconditional([""]))[0], atol=2e-4)


def test_partial_denoising_uses_the_current_model_and_the_frozen_teacher(sd1):
    originals = {n: p.data for n, p in sd1.parameters("xattn").items()}
    moved = {n: v + 0.2 for n, v in originals.items()}
    generator = torch.Generator().manual_seed(8)
    with sd1.swapped(moved):
        batch = partly_denoised(sd1, ["ab", "a"], SAMPLER, generator, originals)
        k = int(torch.randint(4, (1,), generator=torch.Generator().manual_seed(8)))
        seeds = torch.Generator().manual_seed(8)
        torch.randint(4, (1,), generator=seeds)
        drawn = [2 * int(i) + 1 for i in torch.randint(2**40, (2,), generator=seeds)]
        with torch.no_grad():
            x, t = hand_trajectory(sd1, "ab", drawn[0], 4, 3.0, k)
    assert k > 0 and torch.allclose(batch.x_t[0], x[0], atol=2e-4) and batch.t[0] == t
    with torch.no_grad():
        expected = sd1.predict(batch.x_t, batch.t, sd1.encode(["ab", "a"]))
    assert torch.allclose(batch.cond, expected, atol=1e-5)  # the base, not the moved model


@torch.no_grad()
def test_a_bank_without_guidance_has_both_predictions(base):
    unguided = SAMPLER.model_copy(update={"guidance": 1.0})
    bank = TrajectoryBank(base, ["ab", "a ab"], 3, unguided, PlainContext(5))
    for k in range(4):
        t = bank.t[k]
        assert torch.allclose(bank.cond[k], base.predict(bank.x[k], t, base.encode(bank.texts)), atol=1e-5)
        assert torch.allclose(bank.uncond[k], base.predict(bank.x[k], t, base.encode_unconditional([""] * 3)), atol=1e-5)
    assert not torch.allclose(bank.cond, bank.uncond, atol=1e-4)
    seeds = [2 * int(i) + 1 for i in torch.randint(2**40, (3,), generator=torch.Generator().manual_seed(5))]
    assert torch.allclose(bank.x[2, 1], hand_trajectory(base, "a ab", seeds[1], 4, 1.0, 2)[0][0], atol=2e-4)


def test_banks_have_names_and_a_trajectory_for_each_text(sd1):
    context = Images()
    bank = TrajectoryBank(sd1, ["a", "b", "c"], 2, SAMPLER, context, "others")
    assert list(context.made) == ["others"] and bank.texts == ["a", "b", "c"] and bank.x.shape[1] == 3
    bank = TrajectoryBank(sd1, ["a", "b"], 6, SAMPLER, context)
    drawn = bank.draw(60, torch.Generator().manual_seed(0), ["b"] * 59 + ["a"])
    assert list(context.made) == ["others", "trajectories"] and drawn.texts == ["b"] * 59 + ["a"]
    found = {(k, i) for x in drawn.x_t[:59] for k in range(4) for i in range(6) if torch.equal(bank.x[k, i], x)}
    assert len(found) == 12 and {i for _, i in found} == {1, 3, 5}


@pytest.mark.parametrize("size", [None, 8])
@pytest.mark.parametrize("latents", ["current", "base"])
def test_one_step_equals_autograd_by_hand(base, latents, size):
    """Adam's first step is lr * sign(gradient): compare signs and sizes with a gradient computed here, from the raw denoiser."""
    config = ESDConfig(**{**QUICK, "steps": 1, "lr": 1e-4, "latents": latents})
    sampler = SAMPLER.model_copy(update={"size": size})
    erasure = ESD().erase(base, replace(request(), sampler=sampler), config, PlainContext(3))
    context = PlainContext(3)
    generator = context.generator
    if latents == "base":
        batch = TrajectoryBank(base, ["ab"], 4, sampler, context).draw(2, generator)
    else:
        torch.randint(1, (2,), generator=generator)
        batch = partly_denoised(base, ["ab", "ab"], sampler, generator, {})
    pixels = float(size or 16)
    assert batch.x_t.shape[-1] == pixels / 2

    def raw(c):
        ids = torch.tensor([[pixels, pixels, 0.0, 0.0, pixels, pixels]] * 2)
        extra = {} if c.pooled is None else {"added_cond_kwargs": {"text_embeds": c.pooled, "time_ids": ids}}
        out = base.unet(batch.x_t, batch.t, encoder_hidden_states=c.hidden, **extra).sample
        a = base.alphas[batch.t].view(-1, 1, 1, 1)
        return a.sqrt() * out + (1 - a).sqrt() * batch.x_t if base.info.family == "sd2" else out

    parameters = select(base.unet, "xattn")
    for p in parameters.values():
        p.requires_grad_(True)
    predicted = raw(base.encode(["ab", "ab"]))
    with torch.no_grad():
        uncond = raw(base.encode_unconditional(["", ""]))
    assert torch.allclose(batch.cond, predicted, atol=2e-5) and torch.allclose(batch.uncond, uncond, atol=2e-5)
    loss = ((predicted - (2 * uncond - predicted.detach())) ** 2).mean()
    gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values()), allow_unused=True), strict=True))
    for p in parameters.values():
        p.requires_grad_(False)
    assert len(erasure.changes[0].tensors) > 0.5 * len(parameters)
    for name, change in erasure.changes[0].tensors.items():
        g = gradients[name]
        sure = g.abs() > 1e-4 * g.abs().max() + 1e-7
        assert torch.allclose(change[sure], (-1e-4 * g / (g.abs() + 1e-8))[sure], atol=2e-6), name


@pytest.mark.parametrize(("variant", "group"), [("x", "xattn"), ("u", "noxattn"), ("strict", "kv"), ("full", "full")])
def test_only_the_variants_parameters_change(base, variant, group):
    config = ESDConfig(**{**QUICK, **ESD.variants[variant], "latents": "base"})
    assert_changes_only(base, lambda: ESD().erase(base, request(), config, PlainContext()), group)


def test_same_seed_same_bytes_and_loss_falls(sd1):
    config = ESDConfig(**{**QUICK, "steps": 12, "latents": "base"})
    _, context = assert_seeded(lambda context: ESD().erase(sd1, request(), config, context))
    assert_falls(context.losses, 4)


def test_texts_of_the_target_are_used(sd1):
    bare = ESD().erase(sd1, request(), ESDConfig(**QUICK, latents="base", texts=1), PlainContext())
    both = ESD().erase(sd1, request(TARGET), ESDConfig(**QUICK, latents="base", texts=2), PlainContext())
    assert bare.weights_hash() != both.weights_hash()


def test_sepme_preset_is_the_paper_with_cleared_gradients():
    from conceptbench.engine.lineup import resolve

    mine, paper = (resolve(f"esd:{p}", family="sd1", tier="paper").config for p in ("sepme", "paper"))
    assert mine == paper and not mine.accumulate and mine.negative_guidance == 1.0 and ESD.supports.iterative


def test_load_counts_rows(sd1):
    for options in ({"latents": "base"}, {"latents": "base", "start_guidance": 1.0}):
        config = ESDConfig(**{**QUICK, **options})
        sd1.evaluations = 0
        ESD().erase(sd1, request(), config, PlainContext())
        said = ESD.load(config, 1)
        assert sd1.evaluations == said.plain + said.trained
    assert ESD.load(ESDConfig(steps=10, batch=2), 1).plain == 20 * (25 * 2 + 2)


def test_released_preset_has_a_trajectory_for_each_step():
    from conceptbench.engine.lineup import resolve

    config = resolve("esd:released", family="sd1", tier="paper").config
    assert config.bank == config.steps == 200
