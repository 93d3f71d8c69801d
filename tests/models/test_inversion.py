from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.func import functional_call

from conceptbench.core.errors import UserInputError
from conceptbench.core.schemas import Sampler
from conceptbench.models.conditions import Condition
from conceptbench.models.erasure import Change, Erasure
from conceptbench.models.families import component_hashes, load_base
from conceptbench.models.inversion import (
    Draw,
    InversionConfig,
    denoising_error,
    even_draw,
    initial_vectors,
    invert,
    pull_norms,
    random_draw,
)
from conceptbench.models.pooling import encode_both, encode_with, first_eos, pooled_texts, pooled_with, pseudo_words, text_encoders, token_layout, widths

QUICK = InversionConfig(steps=4, batch=3, lr=0.05, templates=("c {}", "{} e f"), evaluation=8)


def latents_for(base, n=3):
    images = np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
    return base.latents_of(images)


def word_vectors(base, word):
    """(1, k, W): the table's rows of a word."""
    return torch.cat([e.table[torch.tensor(e.plain(word))] for e in text_encoders(base)], -1)[None]


def untouched(base):
    parts = list(base.modules().values())
    assert all(not p.requires_grad and p.grad is None for m in parts for p in m.parameters())
    for encoder in text_encoders(base):
        for module in (encoder.module, encoder.module.get_input_embeddings()):
            assert not module._forward_hooks and not module._forward_pre_hooks
    return component_hashes(base.pipeline)


# -- vectors in the place of tokens --------------------------------------------------------------------------------------
TEMPLATES = ("c {}", "{}", "a {} of", "{} and a text that is too long for it")


def test_layout_is_the_tokenizer_s(base):
    for encoder, template in itertools.product(text_encoders(base), TEMPLATES):
        ids, start = token_layout(encoder, template, 2)
        theirs = encoder.tokenizer(template.format("xy"), padding="max_length", max_length=16, truncation=True).input_ids
        assert theirs[start : start + 2] == encoder.plain("xy")
        assert [i for n, i in enumerate(ids) if n not in (start, start + 1)] == [i for n, i in enumerate(theirs) if n not in (start, start + 1)]
        assert not {ids[start], ids[start + 1]} & set(encoder.tokenizer.all_special_ids)


def test_a_word_s_own_vectors_are_the_word(base):
    for template in TEMPLATES:
        ours, words = encode_with(base, template, word_vectors(base, "xyz")[0]), base.encode([template.format("xyz")])
        assert torch.equal(ours.hidden, words.hidden)
        assert (ours.pooled is None) == (words.pooled is None) and (ours.pooled is None or torch.equal(ours.pooled, words.pooled))
        state = pooled_with(base, template, word_vectors(base, "xyz"))
        assert torch.equal(state, pooled_texts(base, [template.format("xyz")]))


def test_each_row_has_a_template_and_vectors_of_its_own(base):
    vectors = torch.cat([word_vectors(base, w) for w in ("xy", "ab", "ba")])
    encoded, states = encode_both(base, ["c {}", "{}", "{} e f g"], vectors)
    words = ["c xy", "ab", "ba e f g"]
    assert torch.equal(encoded.hidden, base.encode(words).hidden) and torch.equal(states, pooled_texts(base, words))


def test_pooled_state_is_that_of_the_end_whatever_the_padding(base):
    """Oracle: the text alone, without padding, one at a time; its last token is the end."""
    texts = ["ab", "a photo of", "x" * 40, ""]
    ours = pooled_texts(base, texts)
    assert ours.shape == (4, sum(widths(base)))
    for text, row in zip(texts, ours, strict=True):
        parts = []
        for encoder in text_encoders(base):
            tokenizer = encoder.tokenizer
            ids = [tokenizer.bos_token_id, *encoder.plain(text)[:14], tokenizer.eos_token_id]
            parts.append(torch.nn.functional.normalize(encoder.module(torch.tensor([ids])).last_hidden_state[0, -1], dim=0))
        assert torch.allclose(row, torch.cat(parts), atol=1e-5)
        assert float(row @ row) == pytest.approx(len(parts), abs=1e-5)


def test_the_largest_id_is_not_the_end(sd1):
    """Of a configuration with eos_token_id 2 the library pools the largest id: an added token instead of the end."""
    tokenizer, encoder = sd1.pipeline.tokenizer, sd1.pipeline.text_encoder
    tokenizer.add_tokens("<new>")
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    encoder.eos_token_id = 2
    ids = torch.tensor([sd1.tokenize("a <new> b")])
    assert int(ids.argmax()) == 2 and first_eos(ids, tokenizer.eos_token_id).tolist() == [4]
    out = encoder(ids)
    own = pooled_texts(sd1, ["a <new> b"])[0]
    assert torch.allclose(own, torch.nn.functional.normalize(out.last_hidden_state[0, 4], dim=0), atol=1e-6)
    assert float(own @ torch.nn.functional.normalize(out.pooler_output[0], dim=0)) < 0.99
    assert first_eos(torch.tensor([[5, 9, 9, 9], [5, 1, 9, 0]]), 9).tolist() == [1, 2]


def test_pseudo_words_are_sampled_like_words(base):
    sampler = Sampler(steps=2, guidance=3.0)
    with pseudo_words(
        base, {"<w>": encode_with(base, "c {}", word_vectors(base, "xy").requires_grad_(True)), "ab": encode_with(base, "{}", word_vectors(base, "ba"))}
    ):
        ours = base.sample([Condition("<w>"), Condition("ab")], [1, 2], sampler)
    assert np.array_equal(ours, base.sample([Condition("c xy"), Condition("ba")], [1, 2], sampler)) and "<w>" not in base._cache
    assert not np.array_equal(ours[1], base.sample([Condition("ab")], [2], sampler)[0])


def test_misuse_is_explained(sd1, monkeypatch):
    with pytest.raises(UserInputError, match="exactly one"):
        encode_with(sd1, "no slot", torch.zeros(1, 2, 32))
    with pytest.raises(UserInputError, match="13 tokens do not fit"):
        encode_with(sd1, "a b {}", torch.zeros(1, 13, 32))
    assert len(encode_with(sd1, "a b {}", torch.zeros(1, 12, 32))) == 1
    with pytest.raises(UserInputError, match=r"\(1, 2, 31\) do not fit"):
        encode_with(sd1, "{}", torch.zeros(1, 2, 31))
    with pytest.raises(UserInputError, match="at least one image"):
        invert(sd1, torch.zeros(0, 4, 8, 8), torch.zeros(1, 1, 32), [1], QUICK, evaluation_seed=0)
    with pytest.raises(UserInputError, match="1 initial vectors for 2 seeds"):
        invert(sd1, latents_for(sd1), torch.zeros(1, 1, 32), [1, 2], QUICK, evaluation_seed=0)
    with pytest.raises(ValueError, match="exactly one"):
        InversionConfig(templates=("a",))
    monkeypatch.setattr(sd1, "modules", lambda: {"text_encoder": torch.nn.Linear(1, 1)})
    with pytest.raises(UserInputError, match=r"text_encoder of base .* is a Linear, which is not supported"):
        text_encoders(sd1)
    monkeypatch.setattr(sd1, "modules", dict)
    with pytest.raises(UserInputError, match="no text encoder"):
        text_encoders(sd1)


# -- the parts of the loss -----------------------------------------------------------------------------------------------
def test_error_equals_the_base_s_own_loss(base):
    """Noise for sd1 and sdxl, velocity for sd2."""
    x = latents_for(base, 5)
    g = torch.Generator().manual_seed(3)
    noise = torch.randn(x.shape, generator=g)
    draw = Draw(torch.arange(5), torch.randint(1000, (5,), generator=g), noise)
    encoded = base.encode(["ab", "c", "d", "e", "f"])
    before = base.evaluations
    ours = denoising_error(base, x, draw, encoded)
    assert base.evaluations - before == 5  # padding is not counted
    assert torch.allclose(ours, base.loss(x, encoded, torch.Generator().manual_seed(3)), rtol=1e-5)
    swapped = denoising_error(base, x.flip(0), Draw(4 - draw.image, draw.t, draw.noise), encoded)
    assert torch.equal(ours, swapped)


def test_even_draw_is_the_same_for_all_and_covers_time():
    x = torch.zeros(3, 4, 2, 2)
    draw, again, other = even_draw(x, 8, 1000, 5), even_draw(x, 8, 1000, 5), even_draw(x, 8, 1000, 6)
    assert sorted(draw.t.tolist()) == [62, 187, 312, 437, 562, 687, 812, 937] and draw.image.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert torch.equal(draw.noise, again.noise) and torch.equal(draw.t, again.t) and not torch.equal(draw.noise, other.noise)


def test_random_draw_is_in_range():
    draw = random_draw(torch.zeros(3, 4, 2, 2), 500, 10, torch.Generator().manual_seed(0))
    assert set(draw.image.tolist()) == {0, 1, 2} and set(draw.t.tolist()) == set(range(10)) and draw.noise.shape == (500, 4, 2, 2)
    assert abs(float(draw.noise.std()) - 1) < 0.05


def test_initial_vectors(base):
    found = initial_vectors(base, "xy", 3, [1, 2, 1])
    assert found.shape == (3, 3, sum(widths(base))) and torch.equal(found[:, :2], word_vectors(base, "xy").expand(3, -1, -1))
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0, 2], found[1, 2])
    assert torch.equal(initial_vectors(base, "axy", 2, [1]), word_vectors(base, "xy"))
    wide = initial_vectors(base, "", 12, [7], 2.0)
    table = initial_vectors(base, "", 12, [7])
    assert float(wide.std()) == pytest.approx(2, rel=0.15) and float(table.std()) == pytest.approx(float(text_encoders(base)[0].table.std()), rel=0.15)


def test_rates():
    assert [InversionConfig(steps=4, lr=1.0).rate(i) for i in range(4)] == [1, 1, 1, 1]
    assert [InversionConfig(steps=4, lr=2.0, decay="linear").rate(i) for i in range(4)] == [2, 1.5, 1, 0.5]
    assert [InversionConfig(steps=6, lr=1.0, warmup=4).rate(i) for i in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert [InversionConfig(steps=6, lr=1.0, warmup=2, decay="linear").rate(i) for i in range(6)] == [0.5, 1, 1, 0.75, 0.5, 0.25]


def test_norms_are_pulled():
    v = torch.randn(2, 3, 5)
    found = pull_norms(v, [2, 3], [0.4, 7.0], 1e-3)
    for part, wanted in ((slice(0, 2), 0.4), (slice(2, 5), 7.0)):
        for s in range(2):
            for k in range(3):
                x = v[s, k, part]
                norm = float(x.norm())
                assert torch.allclose(found[s, k, part], x / norm * (norm + 0.1 * (wanted - norm)), atol=1e-6)
    assert torch.allclose(pull_norms(v, [5], [2.0], 0.5).norm(dim=-1), torch.full((2, 3), 2.0))


# -- inversion -----------------------------------------------------------------------------------------------------------
def listening(base):
    """A random denoiser hardly hears its text; this one does."""
    for name, parameter in base.unet.named_parameters():
        if "attn2.to_v" in name:
            parameter.data *= 30
    return base


def test_inversion_lowers_the_loss_and_leaves_the_base(base):
    before, latents = untouched(listening(base)), latents_for(base)
    config = QUICK.model_copy(update={"steps": 10, "lr": 0.01, "batch": 8, "evaluation": 32, "templates": ("{}",)})
    initial, steps = initial_vectors(base, "b", 2, [1, 2]), []
    found = invert(base, latents, initial, [1, 2], config, evaluation_seed=0, progress=steps.append)
    assert untouched(base) == before and steps == [1] * 10
    assert bool((found.after < found.before).all())
    assert found.vectors.shape == initial.shape and torch.equal(found.initial, initial) and found.curve.shape == (2, 10)
    assert float((found.vectors - initial).abs().amin((0, 1)).max()) > 0 and not found.vectors.requires_grad
    for start, part in zip((0, widths(base)[0]), widths(base), strict=False):  # each encoder's vectors are learned
        assert bool((found.vectors - initial)[..., start : start + part].any(-1).all())


def test_inversion_equals_a_loop_over_the_token_table(sd1):
    """Oracle: the vector as a row of the token table, one seed, the base's own loss, torch's AdamW."""
    config = QUICK.model_copy(update={"templates": ("c {}",), "weight_decay": 0.1, "warmup": 2, "norm": 0.4})
    latents, seed = latents_for(sd1), 11
    found = invert(sd1, latents, initial_vectors(sd1, "z", 1, [5, seed]), [5, seed], config, evaluation_seed=0)
    encoder, ids = sd1.pipeline.text_encoder, torch.tensor([sd1.tokenize("c z")])
    number = int(ids[0, 2])
    table = encoder.get_input_embeddings().weight.data
    row = table[number].clone().requires_grad_(True)
    optimiser = torch.optim.AdamW([row], lr=config.lr, weight_decay=0.1)
    generator = torch.Generator().manual_seed(seed)
    for step in range(4):
        rows = table.clone()
        rows[number] = row
        hidden = functional_call(encoder, {"embeddings.token_embedding.weight": rows}, (ids,)).last_hidden_state
        torch.randint(1, (), generator=generator)
        image = torch.randint(3, (3,), generator=generator)
        t = torch.randint(1000, (3,), generator=generator)
        noise = torch.randn((3, 4, 8, 8), generator=generator)
        x_t = sd1.add_noise(latents[image], noise, t)
        loss = ((sd1.unet(x_t, t, encoder_hidden_states=hidden.expand(3, -1, -1)).sample - noise) ** 2).mean()
        assert loss.item() == pytest.approx(float(found.curve[1, step]), rel=1e-4)
        optimiser.zero_grad()
        loss.backward()
        optimiser.param_groups[0]["lr"] = config.lr * min(1, (step + 1) / 2)
        optimiser.step()
        norm = row.data.norm()
        row.data = row.data / norm * (norm + min(1.0, 100 * optimiser.param_groups[0]["lr"]) * (0.4 - norm))
    assert torch.allclose(found.vectors[1, 0], row.data, atol=1e-5)


def test_a_seed_does_not_depend_on_the_others(base):
    latents, seeds = latents_for(base), [1, 2]
    initial = initial_vectors(base, "b", 2, seeds)
    config = QUICK.model_copy(update={"batch": 4, "steps": 2, "evaluation": 4})
    whole, again = (invert(base, latents, initial, seeds, config, evaluation_seed=0) for _ in range(2))
    for name in ("vectors", "before", "after", "curve"):
        assert torch.equal(getattr(whole, name), getattr(again, name))
    for found in (
        invert(base, latents, initial[1:], [2], config, evaluation_seed=0),
        invert(base, latents, initial.flip(0), [2, 1], config, evaluation_seed=0, rows=4),
    ):
        assert torch.allclose(whole.vectors[1], found.vectors[0], atol=1e-5) and torch.allclose(whole.curve[1], found.curve[0], atol=1e-5)
        assert torch.allclose(whole.before[1], found.before[0], atol=1e-5) and torch.allclose(whole.after[1], found.after[0], atol=1e-5)
    assert not torch.allclose(whole.curve[0], whole.curve[1], atol=1e-3)


def test_the_base_is_restored_after_an_error(sd1):
    before, words = untouched(sd1), sd1.encode(["c z"]).hidden.clone()

    def stop(_):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        invert(sd1, latents_for(sd1), initial_vectors(sd1, "b", 2, [1]), [1], QUICK, evaluation_seed=0, progress=stop)
    with pytest.raises(NotImplementedError, match="meta"):  # in the middle of a forward
        encode_with(sd1, "{}", torch.zeros(1, 1, 32, device="meta"))
    sd1.forget_encoded()
    assert untouched(sd1) == before and torch.equal(sd1.encode(["c z"]).hidden, words)


def test_an_erasure_of_the_text_encoder_is_seen_and_undone(folders):
    base = load_base(str(folders["sd1"]))
    name = "embeddings.token_embedding.weight"
    table = text_encoders(base)[0].table
    before, latents, initial = untouched(base), latents_for(base), initial_vectors(base, "b", 2, [1])
    plain = invert(base, latents, initial, [1], QUICK, evaluation_seed=0)
    erasure = Erasure([Change("text_encoder", "additive", {name: torch.randn(table.shape, generator=torch.Generator().manual_seed(0))})])
    with erasure.applied(base):
        erased = invert(base, latents, initial, [1], QUICK, evaluation_seed=0)
    assert not torch.allclose(erased.vectors, plain.vectors) and not torch.equal(erased.before, plain.before)
    assert untouched(base) == before and torch.equal(invert(base, latents, initial, [1], QUICK, evaluation_seed=0).vectors, plain.vectors)
