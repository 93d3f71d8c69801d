from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

from conceptbench.core.errors import UserInputError
from conceptbench.core.schemas import Sampler
from conceptbench.models.attention_maps import attention_probabilities, attribution_maps, common_heads, enlarged, merged, phrase_in
from conceptbench.models.base import Base
from conceptbench.models.conditions import Condition
from conceptbench.models.runtime import Runtime
from conceptbench.models.sampling import denoise

SAMPLER = Sampler(steps=2, guidance=3.0)
TEXTS = ["a ab", "ab", "c ab d"]
CONDITIONS, PHRASES, SEEDS = [Condition(t) for t in TEXTS], ["ab", "ab", "ab d"], [3, 4, 5]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Blocks of 8 rows: 3 images and guidance fit one with padding, more images need several."""
    monkeypatch.setattr(Base, "exact_rows", 8)


def bicubic(m, side):
    """Keys' kernel with a = -0.75 and the border repeated, one weight at a time."""

    def kernel(x):
        x = abs(x)
        return 1.25 * x**3 - 2.25 * x**2 + 1 if x <= 1 else -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    n = len(m)
    weights = np.zeros((side, n))
    for i in range(side):
        at = (i + 0.5) * n / side - 0.5
        for j in range(math.floor(at) - 1, math.floor(at) + 3):
            weights[i, min(max(j, 0), n - 1)] += kernel(at - j)
    return weights @ m @ weights.T


def by_hand(base, conditions, phrases, seeds, sampler, place="all"):
    """From the inputs of the attention layers, in float64, row by row of the first block: no use of the code under test."""
    caught = []

    def catch(module, args, kwargs):
        caught.append((module, args[0].detach().double(), kwargs["encoder_hidden_states"].detach().double()))

    sites = [s.module for s in base.attention_sites(place)]
    handles = [m.register_forward_pre_hook(catch, with_kwargs=True) for m in sites]
    denoise(base, conditions, seeds, sampler)
    [h.remove() for h in handles]
    side, count = base.latent_shape(None)[1], len(conditions)
    first = count if sampler.guidance != 1 else 0
    means, by_head = np.zeros((count, side, side)), {}
    number = 0
    for module in sites:
        calls = [(x, c) for m, x, c in caught if m is module]
        assert len(calls) == sampler.steps
        for n in range(count):
            positions = base.token_positions(conditions[n].text, phrases[n])
            for head in range(module.heads):
                total = 0
                for x, c in calls:
                    q = x[first + n].numpy() @ module.to_q.weight.double().numpy().T
                    k = c[first + n].numpy() @ module.to_k.weight.double().numpy().T
                    d = q.shape[1] // module.heads
                    score = np.exp(q[:, head * d : (head + 1) * d] @ k[:, head * d : (head + 1) * d].T / d**0.5)
                    total = total + (score / score.sum(1, keepdims=True))[:, positions].sum(1)
                cells = math.isqrt(len(total))
                large = np.maximum(bicubic((total / len(calls)).reshape(cells, cells), side), 0)
                means[n] += large
                by_head.setdefault(module.heads, {}).setdefault((n, head), []).append(large)
        number += module.heads
    usual = max(by_head, key=lambda h: (len(by_head[h][0, 0]), h))
    heads = np.array([[np.mean(by_head[usual][n, h], 0) for h in range(usual)] for n in range(count)])
    return heads, means / number


def check_by_hand(base, sampler, place):
    for site in base.attention_sites():  # queries of random weights look everywhere nearly alike
        site.module.to_q.weight.data = site.module.to_q.weight.data * 8
    maps = attribution_maps(base, CONDITIONS, PHRASES, SEEDS, sampler, place)
    heads, mean = by_hand(base, CONDITIONS, PHRASES, SEEDS, sampler, place)
    assert maps.heads.shape == heads.shape and maps.mean.shape == (3, 8, 8) and maps.heads.dtype == maps.mean.dtype == np.float32
    assert np.allclose(maps.heads, heads, atol=2e-6) and np.allclose(maps.mean, mean, atol=2e-6)
    assert maps.mean.std((1, 2)).min() > 1e-3  # else any map would do


def test_maps_equal_those_made_by_hand(base):
    check_by_hand(base, SAMPLER, "all")


@pytest.mark.parametrize(("guidance", "place"), [(1.0, "all"), (3.0, "down+up")])
def test_maps_without_guidance_and_of_some_sites(sd1, guidance, place):
    check_by_hand(sd1, SAMPLER.model_copy(update={"guidance": guidance}), place)


def check_bytes(base, negative=""):
    conditions = [Condition(t, negative) for t in TEXTS]
    base.evaluations = 0
    before, evaluations = denoise(base, conditions, SEEDS, SAMPLER), base.evaluations
    maps = attribution_maps(base, conditions, PHRASES, SEEDS, SAMPLER)
    assert torch.equal(maps.latents, before) and base.evaluations == 2 * evaluations
    assert torch.equal(denoise(base, conditions, SEEDS, SAMPLER), before)


def test_recording_changes_no_byte(base):
    check_bytes(base)


def test_recording_changes_no_byte_with_another_processor_or_replaced_weights(sd1):
    sd1.unet.set_attn_processor(AttnProcessor())
    check_bytes(sd1, negative="d")
    for p in sd1.parameters("kv").values():
        p.data = p.data * 1.5
    check_bytes(sd1)


def test_maps_do_not_depend_on_the_processor(sd1):
    stock = attribution_maps(sd1, CONDITIONS, PHRASES, SEEDS, SAMPLER)
    sd1.unet.set_attn_processor(AttnProcessor())
    assert np.allclose(attribution_maps(sd1, CONDITIONS, PHRASES, SEEDS, SAMPLER).heads, stock.heads, atol=1e-5)


def test_a_map_is_the_same_in_any_batch_over_several_blocks(sd1):
    """11 images are 22 rows: three blocks, the last one padded, the conditional rows in two of them."""
    conditions, phrases, seeds = [CONDITIONS[i % 3] for i in range(11)], [PHRASES[i % 3] for i in range(11)], list(range(11))
    whole = attribution_maps(sd1, conditions, phrases, seeds, SAMPLER)
    for part in (slice(0, 1), slice(3, 7), slice(9, 11)):
        alone = attribution_maps(sd1, conditions[part], phrases[part], seeds[part], SAMPLER)
        assert np.allclose(whole.heads[part], alone.heads, atol=1e-7) and np.allclose(whole.mean[part], alone.mean, atol=1e-7)


class Third(Runtime):
    """Asks for a third group of rows and does nothing with it."""

    def extra_texts(self, conditions):
        return ["dd" for _ in conditions]


class Rewriting(Runtime):
    def conditions(self, conditions):
        return [Condition(c.text.replace("a ab", "c c c ab")) for c in conditions]


def test_rows_and_texts_of_a_runtime(sd1):
    plain = attribution_maps(sd1, CONDITIONS, PHRASES, SEEDS, SAMPLER)
    sd1.runtime = Third()
    assert np.array_equal(attribution_maps(sd1, CONDITIONS, PHRASES, SEEDS, SAMPLER).heads, plain.heads)
    sd1.runtime = Rewriting()
    seen = attribution_maps(sd1, CONDITIONS, ["ab", "ab", "ab"], SEEDS, SAMPLER)
    sd1.runtime = None
    asked = attribution_maps(sd1, [Condition("c c c ab"), *CONDITIONS[1:]], ["ab", "ab", "ab"], SEEDS, SAMPLER)
    assert np.array_equal(seen.heads, asked.heads) and not np.array_equal(seen.heads[0], plain.heads[0])


def test_queries_of_zero_look_everywhere_alike(base):
    for site in base.attention_sites():
        site.module.to_q.weight.data = torch.zeros_like(site.module.to_q.weight)
    maps = attribution_maps(base, CONDITIONS, PHRASES, SEEDS, SAMPLER)
    share = np.array([2, 2, 3]) / 16  # tokens of the phrase over those of the encoder
    assert np.allclose(maps.mean, share[:, None, None], atol=1e-6) and np.allclose(maps.heads, share[:, None, None, None], atol=1e-6)


def test_a_word_that_is_not_there_or_was_cut_off_has_a_map_of_zeros(sd1):
    long = "c " * 20 + "ab"
    assert len(sd1.tokenize(long)) == 16
    maps = attribution_maps(sd1, [Condition("c d"), Condition(long), Condition("ab")], ["ab"] * 3, SEEDS, SAMPLER)
    assert not maps.mean[:2].any() and not maps.heads[:2].any() and maps.mean[2].min() > 0


def hooks(base):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in base.unet.modules())


def test_hooks_are_gone_afterwards_and_after_an_error(sd1, monkeypatch):
    before = hooks(sd1)
    attribution_maps(sd1, CONDITIONS, PHRASES, SEEDS, SAMPLER)
    assert hooks(sd1) == before
    during = []

    def fail(x_t, t, encoded, to):
        during.append(hooks(sd1))
        raise RuntimeError("no memory")

    monkeypatch.setattr(sd1, "predict", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        attribution_maps(sd1, CONDITIONS, PHRASES, SEEDS, SAMPLER)
    assert during == [before + 3 * len(sd1.attention_sites())] and hooks(sd1) == before


def test_what_cannot_be_recorded_is_refused(sd1):
    with pytest.raises(UserInputError, match="no cross-attention in 'left'"):
        attribution_maps(sd1, CONDITIONS, PHRASES, SEEDS, SAMPLER, "left")
    sd1._compiled = lambda x, t, **_: SimpleNamespace(sample=x)
    with sd1.drawing(), pytest.raises(UserInputError, match="compiled denoiser calls no hooks"):
        attribution_maps(sd1, CONDITIONS, PHRASES, SEEDS, SAMPLER)


def test_half_precision_gives_float32_maps(sd1):
    sd1.sample_with("bf16")
    with sd1.drawing():
        maps = attribution_maps(sd1, CONDITIONS, PHRASES, SEEDS, SAMPLER)
    full = attribution_maps(sd1, CONDITIONS, PHRASES, SEEDS, SAMPLER)
    assert maps.heads.dtype == np.float32 and np.allclose(maps.heads, full.heads, atol=0.02)


def test_probabilities_sum_to_one_and_equal_the_library():
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 9, 12, generator=g), torch.randn(2, 5, 12, generator=g)
    ours = attention_probabilities(q, k, 3)
    assert ours.shape == (2, 3, 9, 5) and torch.allclose(ours.sum(-1), torch.ones(2, 3, 9))
    heads = [x.view(2, -1, 3, 4).transpose(1, 2) for x in (q, k)]
    library = torch.nn.functional.scaled_dot_product_attention(*heads, torch.eye(5).expand(2, 3, 5, 5))
    assert torch.allclose(ours, library, atol=1e-6)


def test_sites_of_several_sizes_and_head_counts():
    assert common_heads([5, 10, 20, 20, 10, 20]) == 20 and common_heads([8, 8, 4]) == 8 and common_heads([5, 10]) == 10
    g = torch.Generator().manual_seed(1)
    sites = [torch.rand(1, 2, 16, generator=g), torch.rand(1, 4, 4, generator=g), torch.rand(1, 4, 16, generator=g)]
    heads, mean = merged(sites, 4)
    large = [s.view(1, -1, 4, 4) if s.shape[-1] == 16 else torch.tensor(np.stack([bicubic(m.view(2, 2).numpy(), 4) for m in s[0]]))[None] for s in sites]
    large = [x.clamp(min=0) for x in large]
    assert torch.allclose(heads.double(), (large[1].double() + large[2]) / 2, atol=1e-6)
    assert torch.allclose(mean.double(), sum(x.double().sum(1) for x in large) / 10, atol=1e-6)


def test_undershoot_is_cut():
    spot = torch.zeros(1, 1, 16)
    spot[..., 5] = 1
    assert np.allclose(enlarged(spot, 8)[0, 0], np.maximum(bicubic(spot.view(4, 4).numpy(), 8), 0), atol=1e-6)
    assert bicubic(spot.view(4, 4).numpy(), 8).min() < 0


def test_the_longest_phrase_without_its_article(sd1):
    assert phrase_in(sd1, "a ab d", ("a", "an ab", "ab d", "gh")) == "ab d"
    assert phrase_in(sd1, "c the ab", ("the ab",)) == "ab"
    assert phrase_in(sd1, "c", ("the ab", "ab")) is None
    assert phrase_in(sd1, "c " * 20 + "ab", ("ab",)) is None
