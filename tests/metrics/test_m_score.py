from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from conceptbench.core.judge import JudgeCard
from conceptbench.core.protocols import presets_of
from conceptbench.core.schemas import Concept, Sampler
from conceptbench.metrics.m_score import MScore, cosines, mean_cosine, paraphrases
from conceptbench.models.erasure import Change, Erasure
from conceptbench.models.families import component_hashes
from conceptbench.models.pooling import pooled_texts
from conceptbench.models.probe import ProbeRequest

NONE = JudgeCard("", "features", "", "", "", "", {})
CONCEPT = Concept(name="ab", kind="object", phrases=("ab", "ba"), templates=("{}", "c {}"))
OTHERS = (Concept(name="e", kind="object", phrases=("ef", "x")), Concept(name="g", kind="style", phrases=("gh",)))
QUICK = {"seeds": 2, "steps": 2, "batch": 2, "lr": 0.05, "images": 4, "templates": ("c {}",), "style_templates": ("{} c",), "evaluation": 4, "shown": 0}


def probe(**options):
    return MScore(MScore.Config(**{**QUICK, **options}), NONE)


def request(concept=CONCEPT, others=OTHERS, asked=None, steps=None, seed=7):
    def images(of, n):
        if asked is not None:
            asked.append((of.name, n))
        return np.random.default_rng(3).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)

    return ProbeRequest(
        concept=concept,
        role="target",
        others=others,
        conditions=(),
        prompt_ids=(),
        seeds=(),
        sampler=Sampler(steps=2, guidance=3.0),
        seed=seed,
        images=images,
        progress=(lambda n: None) if steps is None else steps.append,
    )


def measured(base, made, asked):
    return made.measure(base, asked, made.prepare(base, asked))


def cosine_by_hand(x, y):
    dot, xx, yy = (sum(float(a) * float(b) for a, b in zip(u, v, strict=True)) for u, v in ((x, y), (x, x), (y, y)))
    return dot / math.sqrt(xx * yy)


# -- arithmetic ----------------------------------------------------------------------------------------------------------
def test_cosines_equal_a_loop_and_are_undefined_without_direction():
    x = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    y = np.random.default_rng(1).normal(size=5).astype(np.float32)
    assert cosines(x, y) == pytest.approx([cosine_by_hand(row, y) for row in x]) and mean_cosine(x, y) == pytest.approx(np.mean(cosines(x, y)))
    assert cosines(np.stack([y, 3 * y, -y, 0 * y, y + np.nan, y + np.inf]), y) == pytest.approx([1, 1, -1, np.nan, np.nan, np.nan], nan_ok=True)
    assert np.isnan(cosines(x, 0 * y)).all() and math.isnan(mean_cosine(x[:0], y)) and cosines(y[None], y).max() <= 1


def test_paraphrases_are_all_other_ways_to_say_it():
    assert paraphrases(CONCEPT, "{}") == ["ba", "c ab", "c ba"]
    assert paraphrases(CONCEPT, "c {}") == ["c ba", "ab", "ba"]
    assert paraphrases(CONCEPT, "a {}") == ["a ba", "ab", "c ab", "ba", "c ba"] and paraphrases(OTHERS[1], "{}") == []


# -- protocol ------------------------------------------------------------------------------------------------------------
def test_directions_and_protocol():
    made = probe()
    assert (made.better("target"), made.better("retained")) == ("lower", "higher") and made.applies(CONCEPT, "target") and made.work() == 2
    assert made.protocol.startswith("m_score@recon-v1-2tok-2x2-") and made.protocol == probe(shown=3).protocol and made.role == ""
    changed = {"lr": 0.1, "form": "a {}", "initialiser": "{}", "seeds": 3, "images": 5, "style_templates": ("a {}",), "norm": 0.4}
    assert len({made.protocol, *(probe(**{k: v}).protocol for k, v in changed.items())}) == 1 + len(changed)


def test_options_are_checked():
    for wrong in ({"form": "a"}, {"style_templates": ("{} {}",)}, {"templates": ()}, {"tokens": 0}, {"lr": 0}, {"no": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            probe(**wrong)


def test_presets():
    presets = presets_of("m_score")
    assert next(iter(presets)) == "default" and {"fmn-recon", "mini"} <= set(presets)
    made = {name: MScore.Config(**p.options) for name, p in presets.items()}
    assert len({MScore(c, NONE).protocol for c in made.values()}) == len(made)
    fmn = made["fmn-recon"]
    assert (fmn.tokens, fmn.steps, fmn.batch, fmn.lr, fmn.weight_decay, fmn.norm, fmn.spread, fmn.seeds) == (4, 500, 1, 1e-3, 0.1, 0.4, 1.0, 5)
    assert "{}" in fmn.initialiser and all("{}" not in c.initialiser for n, c in made.items() if n != "fmn-recon")


# -- the probe -----------------------------------------------------------------------------------------------------------
def test_what_comes_from_the_base(base):
    asked, made = [], probe(flip=True, initialiser="x{}", tokens=3)
    prepared = made.prepare(base, request(asked=asked))
    assert asked == [("ab", 4)] and prepared["latents"].shape == (8, 4, 8, 8) and prepared["initial"].shape[:2] == (2, 3)
    states = pooled_texts(base, ["ab", "ba", "c ab", "c ba", "ef", "gh"]).numpy()
    for part, rows in (("reference", states[0]), ("paraphrases", states[1:4]), ("others", states[4:])):
        assert np.allclose(prepared[part], rows, atol=1e-6)
    images = request().images(CONCEPT, 4)
    mirrored = base.latents_of(np.ascontiguousarray(images[:, :, ::-1])).numpy()
    assert np.array_equal(prepared["latents"][:4], base.latents_of(images).numpy()) and np.array_equal(prepared["latents"][4:], mirrored)
    assert np.array_equal(prepared["initial"][0], prepared["initial"][1])  # all three tokens come from the text


def test_values_of_the_parts(base):
    before, steps, made = component_hashes(base.pipeline), [], probe(shown=2)
    asked = request(steps=steps)
    prepared = made.prepare(base, asked)
    found = made.measure(base, asked, prepared)
    assert component_hashes(base.pipeline) == before and steps == [1] * made.work()
    assert set(found.values) == {"", *made.parts} and all(v.shape == (2,) for v in found.values.values()) and len(set(found.clusters)) == 2
    states = pooled_texts(base, ["ab", "ba", "c ab", "c ba", "ef", "gh"]).numpy()
    by_hand = [cosine_by_hand(s, states[0]) for s in states]
    assert found.values["upper"] == pytest.approx([np.mean(by_hand[1:4])] * 2, abs=1e-5)
    assert found.values["chance"] == pytest.approx([np.mean(by_hand[4:])] * 2, abs=1e-5)
    assert (np.abs(found.values[""]) <= 1).all() and not np.allclose(found.values[""], found.values["start"])
    assert {k: v.shape for k, v in found.arrays.items() if k != "vectors"} == {
        "curve": (2, 2),
        "initial": found.arrays["vectors"].shape,
        "images": (2, 16, 16, 3),
    }
    again, other = (probe().measure(base, r, prepared) for r in (request(), request(seed=8)))
    assert all(again.values[k].tobytes() == found.values[k].tobytes() for k in found.values)
    assert not np.allclose(other.arrays["curve"], found.arrays["curve"])


@pytest.mark.parametrize("form", ["{}", "c {}", "{} c"])
def test_the_word_itself_scores_one(sd1, form):
    """A step that is too small to move anything leaves the word where it is."""
    found = measured(sd1, probe(initialiser="{}", tokens=2, form=form, lr=1e-12), request())
    assert found.values["start"] == pytest.approx([1] * 2, abs=1e-5) and found.values[""] == pytest.approx([1] * 2, abs=1e-5)
    assert found.values["loss-after"] == pytest.approx(found.values["loss-before"], rel=1e-5)


def test_styles_have_templates_of_their_own(sd1):
    style = CONCEPT.model_copy(update={"kind": "style"})
    as_style, as_object = (measured(sd1, probe(**options), request(c)) for options, c in (({}, style), ({"templates": ("{} c",)}, CONCEPT)))
    assert np.array_equal(as_style.arrays["curve"], as_object.arrays["curve"])
    assert not np.allclose(as_style.arrays["curve"], measured(sd1, probe(), request()).arrays["curve"])


def test_without_others_and_paraphrases_their_parts_are_undefined(sd1):
    alone = Concept(name="ab", kind="object", phrases=("ab",))
    found = measured(sd1, probe(), request(alone, ()))
    assert np.isnan(found.values["chance"]).all() and np.isnan(found.values["upper"]).all() and np.isfinite(found.values[""]).all()


def test_a_broken_model_is_a_failed_unit_and_one_image_is_enough(sd1):
    made, asked = probe(images=1), request()
    assert np.isfinite(made.measure(sd1, asked, made.prepare(sd1, asked)).values[""]).all()
    prepared = made.prepare(sd1, asked)
    broken = Erasure([Change("unet", "additive", {"conv_out.weight": torch.full_like(sd1.unet.conv_out.weight, torch.nan)})])
    with broken.applied(sd1):
        assert np.isnan(made.measure(sd1, asked, prepared).values[""]).all()


def test_the_reference_is_the_base_s_and_the_tokens_are_read_by_the_model_s_encoder(sd1):
    """An edited text encoder changes what the tokens mean, not what they are compared with."""
    made, asked = probe(initialiser="{}", tokens=2, lr=1e-12), request()
    prepared = made.prepare(sd1, asked)
    bias = torch.randn(32, generator=torch.Generator().manual_seed(0))
    edited = Erasure([Change("text_encoder", "additive", {"final_layer_norm.bias": bias})])
    reference = prepared["reference"].copy()
    with edited.applied(sd1):
        found = made.measure(sd1, asked, prepared)
        state = pooled_texts(sd1, ["ab"]).numpy()[0]
    assert np.array_equal(prepared["reference"], reference)
    assert found.values[""] == pytest.approx([cosine_by_hand(state, reference)] * 2, abs=1e-5) and found.values[""].max() < 0.99
