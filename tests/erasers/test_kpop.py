from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from erasing import (
    KEPT,
    SAMPLER,
    TARGET,
    Images,
    PlainContext,
    assert_base_untouched,
    assert_changes_only,
    assert_falls,
    assert_seeded,
    request,
    snapshot,
    stopped_and_resumed,
)
from pydantic import ValidationError
from safetensors import safe_open
from torch.nn import functional as F

from conceptbench.core.errors import UserInputError
from conceptbench.core.schemas import Concept
from conceptbench.engine.lineup import config_for, presets_of
from conceptbench.erasers.kpop import KPOP, KPOPConfig
from conceptbench.erasers.shared.latents import TrajectoryBank, draw_seeds, partly_denoised
from conceptbench.erasers.shared.prompt_injection import LearnedPrompt, injected
from conceptbench.models.conditions import Condition
from conceptbench.models.eraser import Load
from conceptbench.models.erasure import Erasure
from conceptbench.models.export import export_erasure
from conceptbench.models.families import load_base
from conceptbench.models.groups import select

QUICK = {"steps": 2, "batch": 2, "lr": 1e-3, "prompt_lr": 1e-2, "size": 2, "start_guidance": 3.0, "denoising_steps": 4, "latents": "base", "bank": 4}
OTHER = Concept(name="gh", kind="object", phrases=("gh",), templates=("{}",), anchor="cd")


def config(**options) -> KPOPConfig:
    return KPOPConfig(**{**QUICK, **options})


def points(base, n=3):
    g = torch.Generator().manual_seed(4)
    return torch.randn(n, 4, 8, 8, generator=g), torch.randint(1000, (n,), generator=g)


# -- injection -------------------------------------------------------------------------------------------------------
@torch.no_grad()
def test_copies_of_the_text_change_nothing(base):
    x, t = points(base)
    c = base.encode(["ab", "a cd", "ef"])
    plain = base.predict(x, t, c)
    for place in ("mid", "mid+up", "all"):
        for k in (1, 3):
            copies_change_nothing(base, x, t, c, plain, place, k)


def copies_change_nothing(base, x, t, c, plain, place, k):
    with injected(base, c.hidden.repeat(1, k, 1)[:, None], "concat", place):
        assert torch.allclose(base.predict(x, t, c), plain, atol=5e-6)
    with injected(base, torch.zeros(1, 16, c.hidden.shape[-1]), "add", place):
        assert torch.equal(base.predict(x, t, c), plain)
    with injected(base, torch.zeros(1, 16 * k, c.hidden.shape[-1]), "concat", place):
        assert not torch.allclose(base.predict(x, t, c), plain, atol=1e-4)
    assert torch.equal(base.predict(x, t, c), plain)  # the hooks are gone


@torch.no_grad()
def test_all_places_are_a_longer_context(base):
    x, t = points(base)
    c = base.encode(["ab", "a cd", "ef"])
    p = torch.randn(1, 32, c.hidden.shape[-1], generator=torch.Generator().manual_seed(1))
    with injected(base, p, "concat", "all"):
        found = base.predict(x, t, c)
    assert torch.equal(found, base.predict(x, t, replace(c, hidden=torch.cat([c.hidden, p.expand(3, -1, -1)], 1))))
    with injected(base, p[:, :16], "add", "all"):
        found = base.predict(x, t, c)
    assert torch.equal(found, base.predict(x, t, replace(c, hidden=c.hidden + p[:, :16])))


@torch.no_grad()
@pytest.mark.parametrize("place", ["mid", "mid+up"])
def test_prompts_of_keys_and_of_values_by_hand(sd1, place):
    """Attention written out, at the places alone: K = [c; p_k] W_k, V = [c; p_v] W_v, softmax(Q K / sqrt(d)) V."""
    x, t = points(sd1)
    c = sd1.encode(["ab", "a cd", "ef"])
    p_k, p_v = torch.randn(2, 20, c.hidden.shape[-1], generator=torch.Generator().manual_seed(1))

    def by_hand(attn, h, encoder_hidden_states=None, attention_mask=None, temb=None):
        states = encoder_hidden_states

        def split(y):
            return y.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        q = split(h @ attn.to_q.weight.T)
        k = split(torch.cat([states, p_k.expand(len(states), -1, -1)], 1) @ attn.to_k.weight.T)
        v = split(torch.cat([states, p_v.expand(len(states), -1, -1)], 1) @ attn.to_v.weight.T)
        a = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        return attn.to_out[0]((a @ v).transpose(1, 2).flatten(2))

    with injected(sd1, torch.stack([p_k, p_v]), "concat", place):
        found = sd1.predict(x, t, c)
    changed = [m for n, m in sd1.unet.named_modules() if n.endswith("attn2") and (n.startswith("mid_block") or ("up" in place and n.startswith("up_")))]
    for module in changed:
        module.set_processor(by_hand)
    assert len(changed) == (1 if place == "mid" else 5)
    assert torch.allclose(found, sd1.predict(x, t, c), atol=5e-6)


# -- training --------------------------------------------------------------------------------------------------------
def by_hand(base, options, bank_of, loss_of_theta, texts=("ab",)):
    """Turns of the two players on the base itself, with place ``all``, so that the prompt is just a longer (or shifted) text; Adam is torch's."""
    g = torch.Generator().manual_seed(3)
    draw_seeds(1, g)
    states = base.encode(texts).hidden
    p = (states.std() * torch.randn(1, 32 if options.mode == "concat" else 16, states.shape[-1], generator=g)).requires_grad_()
    draw = bank_of(g)
    theta = select(base.unet, options.parameters)
    before = {n: v.detach().clone() for n, v in theta.items()}
    for v in theta.values():
        v.requires_grad_(True)
    adam_p, adam_theta = torch.optim.Adam([p], 1e-2), torch.optim.Adam(theta.values(), 1e-3)

    def predict(b, prompt=None):
        c = base.encode(b.texts)
        if prompt is not None:
            hidden = torch.cat([c.hidden, prompt.expand(len(b.texts), -1, -1)], 1) if options.mode == "concat" else c.hidden + prompt
            c = replace(c, hidden=hidden)
        return base.predict(b.x_t, b.t, c)

    for _ in range(2):
        b = draw(before)
        frozen = p.detach().clone(), {n: v.detach().clone() for n, v in theta.items()}
        base.unet.zero_grad()
        adam_p.zero_grad()
        ((predict(b, p) - b.cond) ** 2).mean().backward()
        adam_p.step()
        assert all(torch.equal(v, frozen[1][n]) for n, v in theta.items()) and not torch.equal(p, frozen[0])
        base.unet.zero_grad()
        loss_of_theta(b, predict(b), predict(b, p.detach()), predict, lambda: draw(before, 1)).backward()
        adam_theta.step()
    after = {n: (v.detach() - before[n]) for n, v in theta.items()}
    for n, v in theta.items():
        v.requires_grad_(False)
        v.data = before[n]
    base.unet.zero_grad()
    return p.detach(), after


def assert_same(erasure, p, after, name="prompt/*"):
    assert torch.allclose(erasure.hidden[name], p, atol=2e-5)
    changes = erasure.changes[0].tensors
    for n, change in after.items():
        # where a gradient is almost zero, Adam's first steps are ill-conditioned
        close = torch.isclose(changes.get(n, torch.zeros(())).expand_as(change), change, atol=5e-5)
        assert close.float().mean() > 0.98, n


@pytest.mark.parametrize("mode", ["concat", "add"])
def test_two_turns_equal_autograd_by_hand(base, mode):
    options = config(mode=mode, place="all", preserve=0.7)
    erasure = KPOP().erase(base, request(), options, PlainContext(3))

    def bank_of(g):
        context = PlainContext()
        context.generator = g
        bank = TrajectoryBank(base, ["ab"], 4, SAMPLER, context)
        return lambda _before, _kind=0: bank.draw(2, g)

    def theta(b, plain, prompted, predict, draw):
        return ((plain - b.uncond) ** 2).mean() + 0.7 * ((prompted - b.cond) ** 2).mean()

    assert_same(erasure, *by_hand(base, options, bank_of, theta))


def test_current_latents_anchor_and_star_by_hand(sd1, folders):
    """x_t from the model as it is in the turn, the teacher another copy of the base, and the retained concept kept."""
    options = config(latents="current", place="all", neutral="anchor", star=True, star_weight=0.6, texts=2)
    frozen = load_base(str(folders["sd1"]))
    erasure = KPOP().erase(sd1, request(), options, PlainContext(3))

    def bank_of(g):
        def draw(before, kind=0):
            texts = [["ab", "a ab"], ["ef"]][kind]
            rows = torch.randint(len(texts), (2,), generator=g)
            return partly_denoised(sd1, [texts[i] for i in rows.tolist()], SAMPLER, g, before)

        return draw

    def theta(b, plain, prompted, predict, draw):
        with torch.no_grad():
            goal, cond = (frozen.predict(b.x_t, b.t, frozen.encode(texts)) for texts in ([x.replace("ab", "cd") for x in b.texts], b.texts))
        first = ((plain - goal) ** 2).mean() + 0.1 * ((prompted - cond) ** 2).mean()
        r = draw()
        with torch.no_grad():
            kept = frozen.predict(r.x_t, r.t, frozen.encode(["ef", "ef"]))
        return first + 0.6 * ((predict(r) - kept) ** 2).mean()

    assert_same(erasure, *by_hand(sd1, options, bank_of, theta, ["ab", "a ab"]))


def test_star_banks_are_of_targets_and_of_retained(sd1):
    """The first bank's rows show the targets, the second's the retained concepts."""
    seen = []
    original = sd1.predict

    def spy(x, t, encoded, to="eps"):
        if to == "eps" and torch.is_grad_enabled():
            seen.append(encoded.hidden.detach())
        return original(x, t, encoded, to)

    sd1.predict = spy
    context = PlainContext()
    KPOP().erase(sd1, request(), config(star=True, steps=1), context)
    ab, ef = sd1.encode(["ab"]).hidden, sd1.encode(["ef"]).hidden
    assert [torch.equal(h, ab.expand(2, -1, -1)) for h in seen] == [True, True, True, False]
    assert torch.equal(seen[-1], ef.expand(2, -1, -1))
    assert sd1.predict is spy


@pytest.mark.parametrize("group", ["xattn", "noxattn"])
def test_only_the_groups_parameters_change(base, group):
    assert_changes_only(base, lambda: KPOP().erase(base, request(), config(parameters=group), PlainContext()), group)
    assert not any(m._forward_pre_hooks for n, m in base.unet.named_modules() if n.endswith(("to_k", "to_v")))


def test_initial_prompt_and_its_rate(sd1):
    """One Adam step moves no entry by more than the rate; before it p is Gaussian with the states' scale, from the context's generator."""
    options = config(steps=1, separate=True, init=0.5, prompt_lr=3e-3)
    p = KPOP().erase(sd1, request(), options, PlainContext(7)).hidden["prompt/*"]
    g = torch.Generator().manual_seed(7)
    draw_seeds(1, g)
    start = 0.5 * sd1.encode(["ab"]).hidden.std() * torch.randn(2, 32, 32, generator=g)
    moved = (p - start).abs()
    assert p.shape == (2, 32, 32) and moved.max() <= 3.01e-3 and moved.median() > 2e-3
    assert not torch.allclose(p[0], p[1], atol=0.1)


def test_neutral_texts(sd1):
    def made(neutral):
        return KPOP().erase(sd1, request(), config(neutral=neutral, texts=2, batch=4, steps=1), PlainContext()).weights_hash()

    assert made(" ") == made("")
    assert len({made(n) for n in (" ", "cd", "anchor")}) == 3


def test_same_seed_same_bytes_and_losses_fall(sd1):
    context = PlainContext(1)
    KPOP().erase(sd1, request(), config(steps=8, place="all"), context)
    assert_seeded(lambda context: KPOP().erase(sd1, request(), config(steps=2, batch=1), context))
    assert_falls(context.losses, 3)


@pytest.mark.parametrize("latents", ["base", "current"])
def test_goes_on_after_an_interruption(sd1, latents):
    before = snapshot(sd1)
    options = config(steps=2, batch=1, latents=latents, prompts="each", star=True)
    whole = KPOP().erase(sd1, request(TARGET, OTHER), options, Images())
    again, _ = stopped_and_resumed(lambda context: KPOP().erase(sd1, request(TARGET, OTHER), options, context), 1)
    assert_base_untouched(sd1, before)
    assert again.weights_hash() == whole.weights_hash() and again.recovery == whole.recovery


def test_a_prompt_for_each_target(sd1):
    """Only the prompt of the concept in the batch moves."""
    options = config(steps=1, batch=1, prompts="each")
    erasure = KPOP().erase(sd1, request(TARGET, OTHER), options, PlainContext(1))
    assert list(erasure.hidden) == ["prompt/ab", "prompt/gh"]
    g = torch.Generator().manual_seed(1)
    draw_seeds(1, g)
    start = sd1.encode(["ab", "gh"]).hidden.std() * torch.randn(2, 1, 32, 32, generator=g)
    moved = [not torch.allclose(p, s, atol=1e-4) for p, s in zip(erasure.hidden.values(), start, strict=True)]
    assert sorted(moved) == [False, True]
    context = PlainContext(1)
    context.generator = g
    assert moved[0] == (TrajectoryBank(sd1, ["ab", "gh"], 4, SAMPLER, context).draw(1, g).texts == ["ab"])


def test_the_watcher_sees_the_prompt(sd1):
    class Watching(PlainContext):
        def progress(self, step, total, loss, *, prompt=None, **values):
            self.seen = (prompt, values)

    context = Watching()
    erasure = KPOP().erase(sd1, request(), config(), context)
    prompt, values = context.seen
    assert torch.equal(prompt, erasure.hidden["prompt/*"][0]) and {"erased", "recovered"} <= set(values)


# -- recovery --------------------------------------------------------------------------------------------------------
@pytest.fixture
def two(sd1):
    return KPOP().erase(sd1, request(TARGET, OTHER), config(prompts="each", place="all", lr=1e-2), PlainContext())


def test_restoring_injects_while_sampling(sd1, two, tmp_path):
    two.save(tmp_path / "e.safetensors")
    two = Erasure.load(tmp_path / "e.safetensors")
    x, t = points(sd1)
    c = sd1.encode(["ab", "a cd", "ef"])
    a, b = two.hidden["prompt/ab"], two.hidden["prompt/gh"]

    def longer(*prompts):
        with two.applied(sd1), torch.no_grad():
            return sd1.predict(x, t, replace(c, hidden=torch.cat([c.hidden, *(p.expand(3, -1, -1) for p in prompts)], 1)))

    for concepts, key, expected in [
        (["ab"], "", [a]),
        (["ab"], "gh", [b]),
        (["ab"], "ab", [a]),
        (["ab", "gh"], "", [a, b]),
        (["ab", "gh"], "gh", [b]),
        ([], "", []),
    ]:
        with two.restoring(concepts, key).applied(sd1), torch.no_grad():
            found = sd1.predict(x, t, c)
        assert torch.equal(found, longer(*expected)), (concepts, key)
    plain = sd1.sample([Condition("ab")], [1], SAMPLER)
    assert not any(m._forward_pre_hooks for m in sd1.unet.modules() if m is not sd1.unet) and sd1.runtime is None
    seen = []
    handle = sd1.attention_sites("mid")[0].module.to_k.register_forward_hook(lambda m, i, o: seen.append(o.shape[:2]))
    with two.restoring(["ab"]).applied(sd1):
        assert (sd1.sample([Condition("ab")], [1], SAMPLER) != plain).any()
    handle.remove()
    assert {n for _, n in seen} == {16 + 32}  # both halves of guidance, always


def test_random_prompts_have_the_norms_of_keys_and_of_values():
    own = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 50.0])[:, None, None]
    spec = {"mode": "concat", "place": "all", "targets": ["a"], "seed": 1, "key": "random", "concepts": ["a"]}
    drawn = LearnedPrompt(spec, {"prompt/a": own}).prompt()
    assert torch.allclose(drawn[0].norm(), own[0].norm()) and torch.allclose(drawn[1].norm(), own[1].norm())


def test_random_prompts_have_the_same_norm_and_are_others(sd1):
    erasure = KPOP().erase(sd1, request(TARGET, OTHER), config(prompts="each", steps=1, prompt_lr=1e-6), PlainContext(1))

    def prompt(e, concepts):
        spec = e.restoring(concepts, "random").runtime
        return LearnedPrompt(spec.config, {**e.artefacts, **e.hidden}).prompt()

    own, drawn, other = erasure.hidden["prompt/ab"], prompt(erasure, ["ab"]), prompt(erasure, ["gh"])
    assert drawn.shape == own.shape and torch.allclose(drawn.norm(), own.norm(), rtol=1e-5)
    assert torch.equal(drawn, prompt(erasure, ["ab"])) and torch.equal(torch.cat([drawn, other], 1), prompt(erasure, ["ab", "gh"]))
    for one, two in ((drawn, own), (drawn, erasure.hidden["prompt/gh"]), (drawn, other)):  # p hardly moved: a draw like its own would show
        assert abs(F.cosine_similarity(one.flatten(), two.flatten(), dim=0)) < 0.2
    again = KPOP().erase(sd1, request(TARGET, OTHER), config(prompts="each", steps=1, prompt_lr=1e-6), PlainContext(2))
    assert abs(F.cosine_similarity(drawn.flatten(), prompt(again, ["ab"]).flatten(), dim=0)) < 0.2


def test_prompts_of_several_are_summed_when_added():
    hidden = {"prompt/a": torch.ones(1, 4, 3), "prompt/b": 2 * torch.ones(1, 4, 3)}
    spec = {"mode": "add", "place": "all", "targets": ["a", "b"], "seed": 1, "key": ""}
    assert torch.equal(LearnedPrompt({**spec, "concepts": ["a", "b"]}, hidden).prompt(), 3 * torch.ones(1, 4, 3))
    both = LearnedPrompt({**spec, "concepts": ["a", "b"]}, {"prompt/*": torch.ones(1, 4, 3)})
    assert torch.equal(both.prompt(), torch.ones(1, 4, 3))  # one prompt is injected once


def test_wrong_keys(sd1, two):
    shared = KPOP().erase(sd1, request(TARGET, OTHER), config(steps=1), PlainContext())
    with shared.restoring(["gh"], "random").applied(sd1), shared.restoring(["ab"]).applied(sd1):
        pass
    for erasure, concepts, key, said in [(shared, ["ab"], "gh", "all targets share one"), (two, ["ab"], "gg", "'gh'"), (two, ["ef"], "", "ef")]:
        with pytest.raises(UserInputError, match=said), erasure.restoring(concepts, key).applied(sd1):
            pass
    sd1._compiled = sd1.unet.forward
    with two.applied(sd1):
        pass
    with pytest.raises(UserInputError, match="compiled"), two.restoring(["ab"]).applied(sd1):
        pass
    assert sd1.runtime is None and not any(m._forward_pre_hooks for m in sd1.unet.modules() if m is not sd1.unet)


@pytest.mark.parametrize("form", ["patch", "state-dict"])
def test_the_prompt_is_not_exported(sd1, two, tmp_path, form):
    path = export_erasure(two, sd1, tmp_path / "out.safetensors", form)
    with safe_open(path, "pt") as file:
        assert not any("prompt" in k or "hidden" in k for k in file.keys())  # noqa: SIM118
        assert "learned-prompt" not in str(file.metadata())
    if form == "patch":
        out = Erasure.load(path)
        assert not out.hidden and out.recovery is None and out.runtime is None and out.changes


def test_a_key_that_no_target_has_is_refused_before_anything_starts():
    for key in ("", "random"):
        KPOP.check_restoring(config(), ["ab"], key)
    KPOP.check_restoring(config(prompts="each"), ["ab"], "gh")
    with pytest.raises(UserInputError, match="all targets share one") as error:
        KPOP.check_restoring(config(), ["ab"], "gh")
    assert "prompts=each" in error.value.hint


def test_two_banks_without_guidance(sd1):
    """Guidance 1, and each bank under a name of its own, so that one is not read back for the other."""
    context = Images()
    options = config(star=True, start_guidance=1.0, steps=1)
    KPOP().erase(sd1, request(TARGET, OTHER), options, context)
    assert list(context.made) == ["trajectories", "trajectories-retained"]
    assert not torch.equal(context.made["trajectories"]["x"], context.made["trajectories-retained"]["x"])


# -- options ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options", [{"preserve": -1}, {"size": 0}, {"mode": "multiply"}, {"place": "down"}, {"prompts": "none"}, {"prompt_lr": 0}, {"lambda": 1}]
)
def test_bad_options(options):
    with pytest.raises(ValidationError):
        KPOPConfig(**options)


def test_what_cannot_be_done(sd1):
    with pytest.raises(UserInputError, match="retain"):
        KPOP.check(sd1, request(retained=()), config(star=True))
    with pytest.raises(UserInputError, match="anchor"):
        KPOP.check(sd1, request(TARGET.model_copy(update={"anchor": ""})), config(neutral="anchor"))
    with pytest.raises(UserInputError, match="the anchor of 'ab' is 'cd', a phrase of 'cd', which is erased too"):
        KPOP.check(sd1, request(TARGET, Concept(name="cd", kind="object", phrases=("a CD",), anchor="x")), config(neutral="anchor"))
    KPOP.check(sd1, request(TARGET, Concept(name="cd", kind="object", phrases=("a CD",), anchor="x")), config())
    KPOP.check(sd1, request(retained=()), config())
    KPOP.check(sd1, request(retained=(KEPT,)), config(star=True))


def test_load_counts_rows(sd1):
    """What plan says is what the denoiser was asked for: rows of trajectories, of the frozen base and of training."""
    for options in (config(), config(neutral="cd"), config(star=True), config(start_guidance=1.0)):
        sd1.evaluations = 0
        KPOP().erase(sd1, request(), options, PlainContext())
        said = KPOP.load(options, 1)
        assert sd1.evaluations == said.plain + said.trained
    assert KPOP.load(config(), 1) == Load(4 * 4 * 2, 3 * 4, 2, "xattn")
    assert KPOP.load(config(latents="current"), 1).plain == 4 * (2 * 2 + 2)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_presets_are_valid(family):
    assert {"paper", "nudity", "mini"} <= set(presets_of("kpop"))
    for preset in presets_of("kpop"):
        for variant in KPOP.variants:
            config_for(KPOP, variant, preset, family)
    paper = config_for(KPOP, "", "paper", family)
    assert (paper.preserve, paper.size, paper.place, paper.steps, paper.batch, paper.lr, paper.prompt_lr) == (0.1, 10, "mid", 1000, 1, 1e-5, 1e-5)
    assert config_for(KPOP, "", "nudity", family).parameters == "noxattn"
