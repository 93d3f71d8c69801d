from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from erasing import SAMPLER, Images, assert_base_untouched, assert_seeded, request, snapshot, stopped_and_resumed
from pydantic import ValidationError

from conceptbench.core.errors import ConceptBenchError, UserInputError
from conceptbench.core.schemas import Concept
from conceptbench.erasers.fmn import FMNConfig, ForgetMeNot, end_of_text, logit_difference, resteering
from conceptbench.erasers.shared.attention import cross_attention
from conceptbench.models.groups import select
from conceptbench.models.inversion import InversionConfig
from conceptbench.models.pooling import encode_with

AB = Concept(name="ab", kind="object", phrases=("ab",), templates=("{}", "xyz {}"))
GH = Concept(name="gh", kind="object", phrases=("a gh",), templates=("{} z",))
QUICK = {"steps": 2, "batch": 2, "lr": 1e-3, "images": 3}
INVERSION = {"steps": 3, "batch": 2, "lr": 1e-2, "norm": 0.4, "evaluation": 4}


def eager_maps(base, x_t, t, hidden, **extra):
    """The oracle: the library's own eager scores of every attn2, (N, heads, Q, L), recorded by a processor."""
    found = []

    class Recording(AttnProcessor):
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
            q = attn.head_to_batch_dim(attn.to_q(hidden_states))
            k = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
            scores = attn.get_attention_scores(q, k, None)
            found.append(scores.unflatten(0, (-1, attn.heads)))
            out = attn.batch_to_head_dim(scores @ attn.head_to_batch_dim(attn.to_v(encoder_hidden_states)))
            return attn.to_out[1](attn.to_out[0](out))

    before = base.unet.attn_processors
    base.unet.set_attn_processor({n: Recording() if "attn2" in n else p for n, p in before.items()})
    base.unet(x_t, t, encoder_hidden_states=hidden, **extra)
    base.unet.set_attn_processor(before)
    return found


def noised(base, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, 4, 8, 8), generator=generator), torch.randint(1000, (n,), generator=generator)


def drawn(base, names, texts, config, seed=3):
    """What the first step draws, written out: reference, timestep, noise, in this order."""
    context = Images(seed)
    x = torch.cat([base.latents_of(context.images(Concept(name=n, kind="object", phrases=("a",)), config.images)) for n in names])
    index = torch.randint(len(x), (config.batch,), generator=context.generator)
    t = torch.randint(1000, (config.batch,), generator=context.generator)
    noise = torch.randn((config.batch, 4, 8, 8), generator=context.generator)
    a = base.alphas[t].view(-1, 1, 1, 1)
    return a.sqrt() * x[index] + (1 - a).sqrt() * noise, t, [texts[i] for i in index.tolist()]


# -- what the attention layers compute ------------------------------------------------------------------------------------


@pytest.mark.parametrize("processor", [AttnProcessor, AttnProcessor2_0])
def test_captured_probabilities_are_those_of_the_eager_processor(base, processor):
    base.unet.set_attn_processor(processor())
    x_t, t = noised(base, 3)
    encoded = base.encode(["ab", "xyz ab", ""])
    with torch.no_grad():
        with cross_attention(base) as layers:
            base.predict(x_t, t, encoded)
        extra = {k: v for k, v in base._arguments(encoded, x_t).items() if k != "encoder_hidden_states"}
        expected = eager_maps(base, x_t, t, encoded.hidden, **extra)
    assert len(layers) == len(expected) == len(base.attention_sites())
    for layer, scores in zip(layers, expected, strict=True):
        assert torch.allclose(layer.probabilities(), scores, atol=1e-5)
        assert torch.allclose(layer.logits(layer.key).softmax(-1), scores, atol=1e-5)


def test_hooks_leave_the_answer_alone_and_go_away(sd1):
    x_t, t = noised(sd1, 2)
    encoded = sd1.encode(["ab", ""])
    with torch.no_grad():
        plain = sd1.predict(x_t, t, encoded)
        with cross_attention(sd1, "mid") as layers:
            assert torch.equal(sd1.predict(x_t, t, encoded), plain)
        assert [a.site.place for a in layers] == ["mid"]
        sd1.predict(x_t, t, encoded)
    assert len(layers) == 1
    assert not any(m._forward_hooks for m in sd1.unet.modules())


def test_a_layer_that_does_not_answer_is_named(sd1):
    class Silent(AttnProcessor):
        def __call__(self, attn, hidden_states, *args, **kwargs):
            return hidden_states

    sd1.unet.set_attn_processor(Silent())
    x_t, t = noised(sd1, 1)
    with pytest.raises(ConceptBenchError, match="no attention was recorded at"), cross_attention(sd1):
        sd1.predict(x_t, t, sd1.encode(["ab"]))
    with pytest.raises(ConceptBenchError, match="no cross-attention in 'cellar'"), cross_attention(sd1, "cellar"):
        pass


# -- the losses -----------------------------------------------------------------------------------------------------------


def test_resteering_is_the_norm_of_what_each_row_marks(sd1):
    """Rows with different marks: every probability is picked one by one."""
    x_t, t = noised(sd1, 2)
    encoded = sd1.encode(["ab", "xyz ab"])
    marks = torch.zeros(2, 16)
    marks[0, 1:3], marks[1, 4:6] = 1, 1
    with torch.no_grad():
        with cross_attention(sd1) as layers:
            sd1.predict(x_t, t, encoded)
        chosen = [
            float(scores[row, head, cell, token])
            for scores in eager_maps(sd1, x_t, t, encoded.hidden)
            for row, tokens in enumerate([(1, 2), (4, 5)])
            for token in tokens
            for head in range(scores.shape[1])
            for cell in range(scores.shape[2])
        ]
        assert float(resteering(layers, marks, "norm")) == pytest.approx(np.linalg.norm(chosen), rel=1e-5)
        assert float(resteering(layers, marks, "squared")) == pytest.approx(np.square(chosen).sum(), rel=1e-5)


@torch.no_grad()
def test_logit_difference_by_hand(sd1):
    x_t, t = noised(sd1, 2)
    encoded, without = sd1.encode(["ab", "xyz ab"]), sd1.encode([""]).hidden.expand(2, -1, -1)
    with cross_attention(sd1) as layers:
        sd1.predict(x_t, t, encoded)
    means = []
    for layer in layers:
        weight, width = layer.site.module.to_k.weight, layer.query.shape[-1] // layer.heads
        squares = []
        for row in range(2):
            for h in range(layer.heads):
                part = slice(h * width, (h + 1) * width)
                with_it = layer.query[row, :, part] @ (encoded.hidden[row] @ weight.T)[:, part].T
                without_it = layer.query[row, :, part] @ (without[row] @ weight.T)[:, part].T
                squares.append(((with_it - without_it) / math.sqrt(width)) ** 2)
        means.append(torch.cat([s.flatten() for s in squares]).mean())
    assert float(logit_difference(layers, without)) == pytest.approx(float(torch.stack(means).mean()), rel=1e-5)
    assert float(logit_difference(layers, encoded.hidden)) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("options", [{"form": "norm"}, {"form": "squared"}, {"loss": "logits"}, {"form": "norm", "eos": "first"}])
def test_one_step_equals_autograd_by_hand(sd1, options):
    """Adam's first step is lr * gradient / (|gradient| + eps): two concepts, positions that differ between rows."""
    config = FMNConfig(**{**QUICK, "steps": 1, "batch": 4, "lr": 1e-4}, **options)
    # references 0, 2 of `ab` show "ab", 1 shows "xyz ab"; all of `gh` show "a gh z". Ids: start, one for each letter, end.
    texts = ["ab", "xyz ab", "ab", "a gh z", "a gh z", "a gh z"]
    positions = {"ab": [1, 2], "xyz ab": [4, 5], "a gh z": [2, 3]}
    ends = {"ab": 3, "xyz ab": 6, "a gh z": 5}
    x_t, t, chosen = drawn(sd1, ["ab", "gh"], texts, config)
    assert len(set(chosen)) > 1
    parameters = select(sd1.unet, "xattn")
    for p in parameters.values():
        p.requires_grad_(True)
    hidden = sd1.encode(chosen).hidden
    if options.get("loss") == "logits":
        with cross_attention(sd1) as layers:
            sd1.unet(x_t, t, encoder_hidden_states=hidden)
        loss = logit_difference(layers, sd1.encode([""]).hidden.expand(4, -1, -1))
    else:
        total = 0
        for scores in eager_maps(sd1, x_t, t, hidden):
            for row, text in enumerate(chosen):
                marked = positions[text] + ([ends[text]] if "eos" in options else [])
                total = total + (scores[row, :, :, marked] ** 2).sum()
        loss = total.sqrt() if options["form"] == "norm" else total
    gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values()), allow_unused=True), strict=True))
    for p in parameters.values():
        p.requires_grad_(False)
    context = Images(3)
    erasure = ForgetMeNot().erase(sd1, request(AB, GH), config, context)
    assert context.losses == [pytest.approx(float(loss.detach()), rel=1e-4)]
    changed = erasure.changes[0].tensors
    for name, g in gradients.items():
        if g is None or not g.any():
            assert name not in changed
        elif float(g.abs().max()) > 1e-5:
            assert torch.allclose(changed[name], -1e-4 * g / (g.abs() + 1e-8), atol=4e-6), name


# -- which tokens ---------------------------------------------------------------------------------------------------------


def test_end_of_text_marks_the_first_unless_padding_is_asked_for():
    ids = [8, 1, 2, 9, 9, 9]  # Stable Diffusion 1 pads with the end of text
    assert end_of_text(ids, 9, "none") == []
    assert end_of_text(ids, 9, "first") == [3]
    assert end_of_text(ids, 9, "padding") == [3, 4, 5]
    assert end_of_text([8, 1, 9, 0, 0], 9, "padding") == [2]  # Stable Diffusion 2 pads with another id
    assert end_of_text([8, 1, 2], 9, "first") == []  # cut off


def test_marks_leave_the_article_out_and_follow_the_options(sd1, base):
    method = ForgetMeNot()

    def marked(b, concept, **options):
        return {t: m.nonzero().flatten().tolist() for t, (_, m) in method._rows(b, concept, FMNConfig(**options), None).items()}

    assert marked(base, AB) == {"ab": [1, 2], "xyz ab": [4, 5]}
    assert marked(base, GH) == {"a gh z": [2, 3]}
    assert marked(base, AB, eos="first") == {"ab": [1, 2, 3], "xyz ab": [4, 5, 6]}
    assert marked(sd1, AB, eos="padding")["ab"] == list(range(1, 16))
    if base.info.family == "sd2":
        assert marked(base, AB, eos="padding")["ab"] == [1, 2, 3]


def test_a_phrase_that_is_cut_off_is_an_error(sd1):
    long = Concept(name="long", kind="object", phrases=("ab",), templates=("x" * 30 + " {}",))
    with pytest.raises(UserInputError, match="tokens of 'ab' are not in"):
        ForgetMeNot.check(sd1, request(long), FMNConfig(**QUICK))
    with pytest.raises(UserInputError, match="4 tokens do not fit"):
        ForgetMeNot.check(sd1, request(long), FMNConfig(**QUICK, inversion=INVERSION))


# -- erasures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["", "full", "ci"])
def test_only_the_variants_parameters_change(base, variant):
    before = snapshot(base)
    options = dict(ForgetMeNot.variants[variant])
    if "inversion" in options:
        options["inversion"] = INVERSION
    erasure = ForgetMeNot().erase(base, request(AB), FMNConfig(**QUICK, **options), Images())
    assert_base_untouched(base, before)
    changed = set(erasure.changes[0].tensors)
    if variant == "full":
        assert any(".attn1." in n for n in changed) and any("resnets" in n for n in changed)
        assert not any(n.startswith("conv_out") for n in changed)  # behind the last attention
    else:
        assert changed <= set(select(base.unet, "xattn"))
        assert set(n for n in changed if "to_q" in n) == {n for n in select(base.unet, "xattn") if "to_q" in n}


def test_same_seed_same_bytes_and_attention_falls(sd1):
    config = FMNConfig(**{**QUICK, "steps": 10, "optimiser": "adamw", "weight_decay": 1e-2, "clip": 1.0, "lr": 1e-2})
    first, context = assert_seeded(lambda context: ForgetMeNot().erase(sd1, request(AB), config, context))
    assert sum(context.losses[-3:]) < 0.9 * sum(context.losses[:3])
    x_t, t = noised(sd1, 2, seed=7)
    with torch.no_grad():
        before = sum(float(s[..., 1:3].sum()) for s in eager_maps(sd1, x_t, t, sd1.encode(["ab", "ab"]).hidden))
        with first.applied(sd1):
            after = sum(float(s[..., 1:3].sum()) for s in eager_maps(sd1, x_t, t, sd1.encode(["ab", "ab"]).hidden))
    assert after < before


def test_an_interrupted_erasure_ends_in_the_same_bytes(sd1):
    config = FMNConfig(**{**QUICK, "steps": 4, "inversion": INVERSION, "accumulate": True})
    resumed, context = stopped_and_resumed(lambda context: ForgetMeNot().erase(sd1, request(AB), config, context), 1, seed=4)
    assert len(context.losses) == 3
    assert resumed.weights_hash() == ForgetMeNot().erase(sd1, request(AB), config, Images(4)).weights_hash()


def test_images_of_a_folder(sd1):
    context = Images()
    config = FMNConfig(**QUICK, folder="pictures")
    assert config.folders() == ("pictures",) and FMNConfig().folders() == ()
    ForgetMeNot().erase(sd1, request(AB), config, context)
    assert context.asked == [(AB, 3, "pictures")]
    with pytest.raises(UserInputError, match="'pictures' shows one concept, but there are 2"):
        ForgetMeNot().erase(sd1, request(AB, GH), config, context)


@pytest.mark.parametrize("inversion", [None, {**INVERSION, "steps": 1}])
def test_blank_has_noise_only(sd1, inversion):
    context, seen, predict = Images(3), [], sd1.predict
    sd1.predict = lambda x, t, e, to: seen.append((x, t)) or predict(x, t, e, to=to)
    ForgetMeNot().erase(sd1, request(AB), FMNConfig(**{**QUICK, "steps": 1}, blank=True, inversion=inversion), context)
    assert context.asked == ([] if inversion is None else [(AB, 3, None)])  # the inversion alone needs images
    x_t, drawn_t = seen[-1]
    generator = torch.Generator().manual_seed(3)
    if inversion is not None:
        torch.randint(2**40, (2,), generator=generator)
    torch.randint(2 if inversion is None else 3, (2,), generator=generator)
    t = torch.randint(1000, (2,), generator=generator)
    noise = torch.randn((2, 4, 8, 8), generator=generator)
    assert torch.equal(drawn_t, t) and torch.allclose(x_t, (1 - sd1.alphas[t]).sqrt().view(-1, 1, 1, 1) * noise, atol=1e-6)


def test_concept_inversion_marks_the_learned_tokens(base):
    config = FMNConfig(**{**QUICK, "steps": 1}, inversion=INVERSION, tokens=3)
    context = Images(2)
    seen, predict = [], base.predict
    base.predict = lambda x, t, e, to: seen.append(e.hidden) or predict(x, t, e, to=to)
    erasure = ForgetMeNot().erase(base, request(AB, GH), config, context)
    del base.predict
    with torch.no_grad():
        possible = [encode_with(base, t, erasure.artefacts[f"inversion/{c.name}"]).hidden[0] for c in (AB, GH) for t in c.templates]
    assert all(any(torch.equal(row, p) for p in possible) for row in seen[-1])  # the training's own forward
    assert list(context.made) == ["inversion-0", "inversion-1"]  # a name may be no file's
    assert set(erasure.artefacts) == {"inversion/ab", "inversion/gh"}
    vectors = erasure.artefacts["inversion/ab"]
    other = ForgetMeNot().erase(base, request(AB), config, Images(3)).artefacts["inversion/ab"]
    assert not torch.equal(vectors[-1], other[-1])  # of the seed
    assert vectors.shape[0] == 3 and not torch.equal(vectors, erasure.artefacts["inversion/gh"])
    rows = ForgetMeNot()._rows(base, AB, config, vectors)
    assert {t: m.nonzero().flatten().tolist() for t, (_, m) in rows.items()} == {"ab": [1, 2, 3], "xyz ab": [4, 5, 6]}
    with torch.no_grad():
        assert torch.equal(rows["xyz ab"][0].hidden, encode_with(base, "xyz {}", vectors).hidden)
    assert all(not e.hidden.requires_grad for e, _ in rows.values())


def test_inversion_uses_the_concepts_templates_unless_given(sd1, monkeypatch):
    from conceptbench.erasers import fmn

    used = []
    whole = fmn.invert

    def invert(base, latents, initial, seeds, config, **rest):
        used.append((config.templates, len(latents), initial))
        return whole(base, latents, initial, seeds, config, **rest)

    monkeypatch.setattr(fmn, "invert", invert)
    for given in ({}, {"templates": ("a picture of {}",)}):
        ForgetMeNot().erase(sd1, request(AB), FMNConfig(**QUICK, blank=True, inversion={**INVERSION, **given}), Images())
    assert [u[0] for u in used] == [AB.templates, ("a picture of {}",)] and used[0][1] == 3
    table = sd1.pipeline.text_encoder.get_input_embeddings().weight
    ids = sd1.pipeline.tokenizer("ab", add_special_tokens=False).input_ids
    assert torch.equal(used[0][2][0, :2], table[ids]) and used[0][2][0, 2:].std() > 0.5  # then standard normal ones


def test_options_and_work():
    with pytest.raises(ValidationError):
        FMNConfig(eos="all")
    with pytest.raises(ValidationError):
        FMNConfig(inversion={"templates": ["no slot"]})
    assert isinstance(FMNConfig(**ForgetMeNot.variants["ci"]).inversion, InversionConfig)
    assert next(iter(ForgetMeNot.variants)) == "" and FMNConfig(**ForgetMeNot.variants[""]).parameters == "xattn"
    config = FMNConfig(steps=35, batch=2, images=8, inversion={"steps": 100, "batch": 4})
    load = ForgetMeNot.load(config, 3)
    assert load.trained == 35 * 2 + 3 * 100 * 4 and load.plain == 3 * 2 * 64 and load.images == 3 * 8
    for options in ({"blank": True}, {"folder": "pictures"}):
        assert (ForgetMeNot.load(FMNConfig(**options), 3).plain, ForgetMeNot.load(FMNConfig(**options), 3).images) == (0, 0)
    assert ForgetMeNot.load(FMNConfig(blank=True, inversion={}), 3).images == 24
    assert ForgetMeNot.supports.iterative


@pytest.mark.parametrize("inversion", [None, INVERSION])
def test_load_counts_rows_and_images(sd1, inversion):
    config, context = FMNConfig(**QUICK, inversion=inversion), Images()
    sd1.evaluations = 0
    ForgetMeNot().erase(sd1, request(AB, GH), config, context)
    said = ForgetMeNot.load(config, 2)
    assert sd1.evaluations == said.plain + said.trained and said.images == sum(n for _, n, _ in context.asked)


def test_blank_has_the_size_that_the_suite_draws(sd1):
    seen, predict = [], sd1.predict
    sd1.predict = lambda x, t, e, to: seen.append(x.shape) or predict(x, t, e, to=to)
    small = replace(request(AB), sampler=SAMPLER.model_copy(update={"size": 8}))
    ForgetMeNot().erase(sd1, small, FMNConfig(**QUICK, blank=True), Images())
    assert set(seen) == {(2, 4, 4, 4)}
