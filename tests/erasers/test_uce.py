from __future__ import annotations

import pytest
import torch
from erasing import KEPT, TARGET, PlainContext, assert_base_untouched, request, snapshot

from conceptbench.core.errors import UserInputError
from conceptbench.core.schemas import Concept
from conceptbench.erasers.shared.spans import aligned_tokens, last_token
from conceptbench.erasers.uce import UCE, UCEConfig, closed_form


def problem(seed=0, out=6, d=5, n=3, m=4):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(a, d, generator=generator, dtype=torch.float64) for a in (out, n, n, m)]


def objective(w1, w, c, g, p, ridge, ae, ap):
    return ae * ((w1 @ c.T - w @ g.T) ** 2).sum() + ap * ((w1 @ p.T - w @ p.T) ** 2).sum() + ridge * ((w1 - w) ** 2).sum()


def test_gradient_of_the_objective_is_zero_there():
    w, c, g, p = problem()
    w1 = closed_form(w, c, g, p, ridge=0.3, erase_scale=1.4, preserve_scale=0.7).requires_grad_(True)
    (gradient,) = torch.autograd.grad(objective(w1, w, c, g, p, 0.3, 1.4, 0.7), w1)
    assert gradient.abs().max() < 1e-11
    wrong = closed_form(w, c, -g, p, ridge=0.3, erase_scale=1.4, preserve_scale=0.7)  # a planted sign error is seen
    (gradient,) = torch.autograd.grad(objective(wrong.requires_grad_(True), w, c, g, p, 0.3, 1.4, 0.7), wrong)
    assert gradient.abs().max() > 0.1


def test_equals_stacked_least_squares():
    w, c, g, p = problem(1)
    left = torch.cat([2**0.5 * c, 0.5**0.5 * p, 0.1**0.5 * torch.eye(5, dtype=torch.float64)])
    right = torch.cat([2**0.5 * g @ w.T, 0.5**0.5 * p @ w.T, 0.1**0.5 * w.T])
    expected = torch.linalg.lstsq(left, right).solution.T
    assert torch.allclose(closed_form(w, c, g, p, ridge=0.1, erase_scale=2.0, preserve_scale=0.5), expected, atol=1e-11)


def test_limits():
    w, c, g, p = problem(2, m=2)
    same = closed_form(w, c, g, p, ridge=0.5, erase_scale=0.0, preserve_scale=1.0)
    assert torch.allclose(same, w, atol=1e-12)
    kept = closed_form(w, c, g, p, ridge=0.5, erase_scale=1.0, preserve_scale=1e9)
    assert ((kept - w) @ p.T).abs().max() < 1e-7
    free = closed_form(w, c, g, p[:0], ridge=1e-10, erase_scale=1.0, preserve_scale=0.0)
    assert torch.allclose(free @ c.T, w @ g.T, atol=1e-6)


def test_tokens_are_aligned_from_the_last_subject_token(sd1):
    x, y = aligned_tokens(sd1, "a ab", "ab", "a cde", "cde", "end")
    a, b = last_token(sd1, "a ab", "ab"), last_token(sd1, "a cde", "cde")
    length = len(sd1.tokenize(""))
    assert len(x) == len(y) == length - max(a, b)
    assert torch.equal(x[0], sd1.encode(["a ab"]).hidden[0, a]) and torch.equal(y[0], sd1.encode(["a cde"]).hidden[0, b])
    one, _ = aligned_tokens(sd1, "a ab", "ab", "", "", "last")
    assert one.shape[0] == 1 and last_token(sd1, "", " ") == 0
    with pytest.raises(UserInputError, match="'zz' are not in 'a ab'"):
        last_token(sd1, "a ab", "zz")


@pytest.mark.parametrize("span", ["last", "end"])
def test_maps_target_to_anchor_and_changes_only_keys_and_values(base, span):
    before = snapshot(base)
    config = UCEConfig(span=span, ridge=1e-8, preserve=False, preserve_empty=False)
    erasure = UCE().erase(base, request(), config, PlainContext())
    assert_base_untouched(base, before)
    assert set(erasure.changes[0].tensors) == set(base.parameters("kv"))
    c, g = aligned_tokens(base, "ab", "ab", "cd", "cd", span)
    name, weight = next(iter(base.parameters("kv").items()))
    wanted = c[:1] @ weight.T * 0 + g[:1] @ weight.T
    with erasure.applied(base):
        assert torch.allclose(c[:1] @ weight.T, wanted, atol=5e-3), name


def test_retained_concepts_move_less_when_they_are_kept(sd1):
    p = sd1.encode(["ef"]).hidden[0]
    weight = next(iter(sd1.parameters("kv").values()))
    moved = {}
    for preserve in (True, False):
        with (
            UCE()
            .erase(sd1, request(TARGET, retained=(KEPT,)), UCEConfig(preserve=preserve, preserve_empty=False, preserve_scale=10.0, ridge=0.01), PlainContext())
            .applied(sd1)
        ):
            moved[preserve] = weight.detach().clone()
    drift = {k: ((w - weight) @ p.T).norm() for k, w in moved.items()}
    assert drift[True] < 0.5 * drift[False]


@pytest.mark.parametrize("preset", ["paper", "released", "mini", "time"])
def test_shipped_presets_run(sd1, preset):
    from conceptbench.engine.lineup import resolve

    entry = resolve(f"uce:{preset}", family="sd1", tier="paper")
    assert UCE().erase(sd1, request(), entry.config, PlainContext()).changes[0].tensors


def test_time_pairs_every_token_and_keeps_nothing_else(sd1):
    """TIME's least squares over whole aligned sentences: what stands before the target is paired with itself."""
    from conceptbench.engine.lineup import resolve

    config = resolve("uce:time", family="sd1", tier="paper").config
    assert (config.ridge, config.erase_scale, config.preserve, config.preserve_empty, config.guide, config.span) == (0.1, 1.0, False, False, "anchor", "end")
    target = TARGET.model_copy(update={"templates": ("x {}",), "anchor": "cd"})  # one token a letter: "ab" and "cd" are aligned
    edited = UCE().erase(sd1, request(target), config.model_copy(update={"texts": 1}), PlainContext()).changes[0].tensors
    old, new = sd1.encode(["x ab"]).hidden[0].double(), sd1.encode(["x cd"]).hidden[0].double()
    rows = [0, 1, *range(sd1.token_positions("x ab", "ab")[-1], len(old))]  # the start, the x, and from the last subject token on
    c, g = old[rows], new[rows]
    for name, weight in sd1.parameters("kv").items():
        w = weight.detach().double()
        stacked = torch.cat([c, 0.1**0.5 * torch.eye(c.shape[1], dtype=torch.float64)])
        wanted = torch.linalg.lstsq(stacked, torch.cat([g @ w.T, 0.1**0.5 * w.T])).solution.T
        assert torch.allclose(edited[name].double(), wanted - w, atol=1e-5), name
    assert torch.allclose(old[:2], new[:2], atol=1e-5)
    plain = UCE().erase(sd1, request(target), config.model_copy(update={"texts": 1, "prefix": False}), PlainContext()).changes[0].tensors
    assert any(not torch.allclose(plain[n], edited[n], atol=1e-4) for n in edited)


def test_a_guide_that_is_erased_too_is_refused(sd1):
    other = Concept(name="cd", kind="object", phrases=("a cd",), anchor="x")
    with pytest.raises(UserInputError, match="the anchor of 'ab' is 'cd', a phrase of 'cd'"):
        UCE.check(sd1, request(TARGET, other), UCEConfig())
    UCE.check(sd1, request(TARGET, other), UCEConfig(guide=""))
    UCE.check(sd1, request(TARGET, other.model_copy(update={"phrases": ("cde",), "anchor": ""})), UCEConfig())
