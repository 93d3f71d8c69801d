"""Selective Amnesia on class-conditional models."""

from __future__ import annotations

import classy
import pytest
import torch
from erasing import Images, assert_base_untouched, assert_falls, assert_seeded, snapshot

from conceptbench.core.errors import UserInputError
from conceptbench.core.schemas import Concept, Sampler
from conceptbench.engine.lineup import resolve
from conceptbench.erasers.sa import SAConfig, SelectiveAmnesia, surrogates
from conceptbench.erasers.shared.fisher import fisher_of
from conceptbench.erasers.shared.references import References
from conceptbench.models.eraser import EraseRequest

ZERO, ONE, TWO = (Concept(name=f"digit {c}", kind="object", phrases=(c,)) for c in classy.CLASSES)
REQUEST = EraseRequest(targets=(ZERO,), retained=(ONE, TWO), sampler=Sampler(steps=2, guidance=1.0))
QUICK = {
    "steps": 2,
    "batch": 4,
    "lr": 1e-3,
    "lam": 2.0,
    "parameters": "full",
    "surrogate": "noise",
    "surrogate_images": 6,
    "replay_texts": (),
    "replay_images": 9,
    "fisher_images": 3,
    "fisher_timesteps": 1,
}


class Small(Images):
    side = 8


def config(**options) -> SAConfig:
    return SAConfig(**{**QUICK, **options})


@pytest.fixture(params=["cvae", "ddpm"])
def base(request):
    return classy.base(request.param)


def watched(monkeypatch, base):
    """Every call of the objective: (latents, texts, timesteps, result)."""
    calls, objective, encode = [], base.objective, base.encode
    texts = []
    monkeypatch.setattr(base, "encode", lambda t: texts.append(list(t)) or encode(t))

    def remember(x, encoded, draws):
        result = objective(x, encoded, draws)
        calls.append((x, texts[-1], draws.t, result.detach()))
        return result

    monkeypatch.setattr(base, "objective", remember)
    return calls


@pytest.mark.parametrize("gamma", [0.0, 0.5])
@pytest.mark.parametrize("naive", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_of_a_step(base, monkeypatch, gamma, naive, reduction):
    """Forget, or its negative, plus gamma replay; at the old weights the penalty is 0. Replay has every class but the target."""
    calls = watched(monkeypatch, base)
    context = Small()
    erasure = SelectiveAmnesia().erase(base, REQUEST, config(lam=0.0, steps=1, gamma=gamma, naive=naive, reduction=reduction), context)
    x, texts, _, each = calls[0]
    assert x.shape[1:] == (1, 8, 8) and texts[:4] == ["0"] * 4 and len(texts) == (8 if gamma else 4) and set(texts[4:]) <= {"1", "2"}
    reduce = torch.mean if reduction == "mean" else torch.sum
    expected = (-1 if naive else 1) * reduce(each[:4]) + (gamma * reduce(each[4:]) if gamma else 0)
    assert context.losses[0] == pytest.approx(float(expected), rel=1e-5)
    assert erasure.changes[0].component == base.component and erasure.changes[0].tensors


def test_shared_timesteps(monkeypatch):
    ddpm = classy.base("ddpm")
    calls = watched(monkeypatch, ddpm)
    SelectiveAmnesia().erase(ddpm, REQUEST, config(lam=0.0, same_timesteps=True), Small())
    SelectiveAmnesia().erase(ddpm, REQUEST, config(lam=0.0), Small())
    shared = [bool((t[:4] == t[4:]).all()) for _, _, t, _ in calls]
    assert shared == [True, True, False, False]


def test_surrogates_of_noise_and_of_the_target_itself(base):
    context = Small()
    latents, prompts = surrogates(base, ZERO, config(surrogate_images=400), context)
    assert latents.shape == (400, 1, 8, 8) and prompts == [["0"]] * 400 and context.asked == []
    low, high = (0.0, 1.0) if base.info.family == "cvae" else (-1.0, 1.0)
    scaled = (latents - low) / (high - low)
    counts = torch.histc(scaled, 4, 0, 1) / scaled.numel()
    assert torch.allclose(counts, torch.full((4,), 0.25), atol=0.01)
    latents, prompts = surrogates(base, ZERO, config(surrogate="own"), context)
    assert [(c.texts(), n) for c, n, _ in context.asked] == [(["0"], 6)] and prompts == [["0"]] * 6


@pytest.mark.parametrize("timesteps", [1, 4])
def test_fisher_information_by_hand(base, timesteps):
    """One image at a time, all its timesteps added up before the square."""
    if base.info.family == "cvae" and timesteps > 1:
        pytest.skip("an autoencoder has no timesteps")
    references = References(torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1)), ["0", "1", "2", "0", "1"])
    found = fisher_of(base, references, 3, "full", timesteps, torch.Generator().manual_seed(2))
    g = torch.Generator().manual_seed(2)
    chosen = torch.randperm(5, generator=g)[:3].tolist()
    times = torch.tensor([0]) if base.timesteps == 1 else (torch.arange(timesteps) * 2 + 1) * 1000 // (2 * timesteps)
    parameters = dict(base.network.named_parameters())
    expected = {n: torch.zeros_like(p) for n, p in parameters.items()}
    for p in parameters.values():
        p.requires_grad_(True)
    for i in chosen:
        x, own = references.latents[i].expand(len(times), 1, 8, 8), base.encode([references.texts[i]] * len(times))
        total = base.objective(x, own, base.draws(x, g, times)).sum() * base.timesteps / timesteps
        for n, gradient in zip(parameters, torch.autograd.grad(total, list(parameters.values()), allow_unused=True), strict=True):
            expected[n] += 0 if gradient is None else gradient**2 / 3
    for n in parameters:
        assert torch.allclose(found[n], expected[n], rtol=1e-4, atol=1e-6 * float(expected[n].max())), n


def test_a_huge_lambda_leaves_the_weights():
    """As lambda grows the minimum is the old weights: Adam only swings round them where there is Fisher information."""
    base = classy.base("cvae")
    context = Small()
    held = SelectiveAmnesia().erase(base, REQUEST, config(steps=10, lr=1e-6, lam=1e12, fisher_images=9), context).changes[0].tensors
    free = SelectiveAmnesia().erase(base, REQUEST, config(steps=10, lr=1e-6, lam=0.0), Small()).changes[0].tensors
    matters = {n: f > 1e-6 * f.max() for n, f in context.answers.items()}
    held, free = (torch.cat([tensors[n][m] for n, m in matters.items()]).abs() for tensors in (held, free))
    assert (held > 5e-6).float().mean() < 0.05 < 0.3 < (free > 5e-6).float().mean()


def test_seed_and_loss(base):
    before = snapshot(base)
    _, context = assert_seeded(lambda context: SelectiveAmnesia().erase(base, REQUEST, config(steps=12, lam=0.1), _small(context)))
    assert_falls([p["forget"] for p in context.curve], 4)
    assert_base_untouched(base, before)


def _small(context: Images) -> Images:
    context.side = 8
    return context


def test_refused():
    cvae = classy.base("cvae")
    with pytest.raises(UserInputError, match="fisher_timesteps 2 is more than the base's 1"):
        SelectiveAmnesia.check(cvae, REQUEST, config(fisher_timesteps=2))
    with pytest.raises(UserInputError, match="names a target"):
        SelectiveAmnesia.check(cvae, EraseRequest((ZERO, ONE, TWO), (), REQUEST.sampler), config())


def test_no_texts_need_classes(sd1):
    with pytest.raises(UserInputError, match="has no classes to take in their place"):
        SelectiveAmnesia.check(sd1, REQUEST, config())


@pytest.mark.parametrize(("family", "lam", "steps"), [("cvae", 100.0, 10_000), ("ddpm", 10.0, 20_000)])
def test_shipped_presets(family, lam, steps):
    found = resolve("sa:paper", family=family, tier="paper").config
    assert (found.lam, found.steps, found.surrogate, found.replay_texts, found.parameters) == (lam, steps, "noise", (), "full")
    assert (found.reduction, found.same_timesteps) == (("sum", False) if family == "cvae" else ("mean", True))
    naive = resolve("sa-naive:paper", family=family, tier="paper").config
    assert naive.naive and naive.surrogate == "own"
    with pytest.raises(UserInputError, match=f"esd-x cannot erase from family '{family}'"):
        resolve("esd-x:paper", family=family, tier="paper")


@pytest.mark.parametrize("draws", [False, True])
def test_replay_of_an_autoencoder_may_be_drawn_anew(monkeypatch, draws):
    """Its images are means of pixels; draws of them are 0 or 1, other ones in each step, and as often 1 as the mean says."""
    vae = classy.base("cvae")
    calls = watched(monkeypatch, vae)
    SelectiveAmnesia().erase(vae, REQUEST, config(lam=0.0, replay_draws=draws, steps=3, batch=400), Small())
    replayed = torch.stack([x[400:] for x, *_ in calls])
    whole = (replayed == replayed.round()).all()
    assert bool(whole) == draws and not torch.equal(replayed[0], replayed[1])
    assert all(((x[:400] > 0) & (x[:400] < 1)).any() for x, *_ in calls)  # surrogates are as they are
    means = vae.latents_of(Small().images(ONE, 4))
    seen = torch.stack([vae.redrawn(means, torch.Generator().manual_seed(s)) for s in range(2000)]).mean(0)
    torch.testing.assert_close(seen, means, atol=0.06, rtol=0)
    ddpm = classy.base("ddpm")
    x = torch.rand(2, 1, 8, 8)
    assert ddpm.redrawn(x, torch.Generator()) is x  # a draw already
