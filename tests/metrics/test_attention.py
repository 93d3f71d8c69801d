from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import entropy as scipy_entropy

from conceptbench.core.judge import JudgeCard
from conceptbench.core.schemas import Concept, Sampler
from conceptbench.metrics.attention import AttentionEntropy, contrast, first_of_each, normalised_entropy
from conceptbench.models.attention_maps import attribution_maps
from conceptbench.models.base import Base
from conceptbench.models.conditions import Condition
from conceptbench.models.probe import ProbeRequest
from conceptbench.models.runtime import Runtime

CONCEPT = Concept(name="ab", kind="object", phrases=("an ab", "gh"))
NONE = JudgeCard("", "features", "", "", "", "", {})
SAMPLER = Sampler(steps=2, guidance=3.0)
TEXTS = ["an ab c", "an ab c", "d", "gh d", "ab"]
IDS = ("p0", "p0", "p1", "p2", "p3")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(Base, "exact_rows", 8)


def probe(**options):
    return AttentionEntropy(AttentionEntropy.Config(**options), NONE)


def request(texts=TEXTS, ids=IDS, seeds=None, done=None):
    return ProbeRequest(
        concept=CONCEPT,
        role="target",
        others=(),
        conditions=tuple(Condition(t) for t in texts),
        prompt_ids=tuple(ids),
        seeds=tuple(seeds or range(10, 10 + len(texts))),
        sampler=SAMPLER,
        seed=0,
        images=lambda concept, n: np.zeros((n, 1, 1, 3), np.uint8),
        progress=(lambda n: None) if done is None else done.append,
    )


# -- arithmetic ----------------------------------------------------------------------------------------------------------
def test_entropy_equals_scipy():
    maps = np.random.default_rng(0).random((3, 2, 5, 7)) ** 4
    assert np.allclose(normalised_entropy(maps), scipy_entropy(maps.reshape(3, 2, 35), axis=-1) / np.log(35), atol=1e-12)


def test_entropy_at_its_ends():
    spot = np.zeros((4, 4))
    spot[1, 2] = 0.3
    half = np.zeros((4, 4))
    half[:2] = 7
    maps = np.stack([np.full((4, 4), 0.125), spot, half, np.zeros((4, 4)), np.full((4, 4), np.nan), np.full((4, 4), np.inf)])
    assert np.array_equal(normalised_entropy(maps), [1, 0, 0.75, np.nan, np.nan, np.nan], equal_nan=True)
    assert np.allclose(contrast(maps), [0, np.sqrt(15), 1, np.nan, np.nan, np.nan], equal_nan=True)
    assert np.isnan(normalised_entropy(np.ones((1, 1))))
    assert normalised_entropy(np.full((7, 7), 1 / 3)) == 1 and normalised_entropy(np.full((8, 8), 0.1)) == 1  # not a rounding error more


def test_entropy_and_contrast_do_not_depend_on_the_phrase_s_share():
    maps = np.random.default_rng(1).random((6, 8, 8))
    assert np.allclose(normalised_entropy(maps * 1e-5), normalised_entropy(maps)) and np.allclose(contrast(maps * 1e-5), contrast(maps))
    assert np.allclose(contrast(maps), [np.std(m) / np.mean(m) for m in maps])


def test_first_of_each():
    assert first_of_each(IDS, 9) == [0, 2, 3, 4] and first_of_each(IDS, 2) == [0, 2] and first_of_each((), 2) == []


# -- the probe -----------------------------------------------------------------------------------------------------------
def test_units_are_prompts_with_their_first_seed_and_those_without_the_word_fail(base):
    found = probe().measure(base, request(), {})
    assert list(found.clusters) == ["p0", "p1", "p2", "p3"]
    maps = attribution_maps(base, [Condition(t) for t in ("an ab c", "gh d", "ab")], ["ab", "gh", "ab"], [10, 13, 14], SAMPLER)
    expected = {
        "": scipy_entropy(maps.mean.reshape(3, -1).astype(float), axis=-1) / np.log(64),
        "heads": (scipy_entropy(maps.heads.reshape(3, -1, 64).astype(float), axis=-1) / np.log(64)).mean(1),
        "contrast": maps.mean.reshape(3, -1).std(1) / maps.mean.reshape(3, -1).mean(1),
    }
    assert set(found.values) == {"", *AttentionEntropy.parts}
    for part, values in found.values.items():
        assert np.isnan(values[1]) and np.allclose(values[[0, 2, 3]], expected[part], rtol=1e-5), part
    assert np.array_equal(found.arrays["index"], [0, 3]) and np.allclose(found.arrays["heads"], maps.heads[:2], atol=1e-7)
    assert np.allclose(found.arrays["mean"], maps.mean[:2], atol=1e-7) and np.allclose(found.arrays["entropy"], expected[""][:2])
    images = base.sample([Condition("an ab c"), Condition("gh d")], [10, 13], SAMPLER)
    assert found.arrays["images"].dtype == np.uint8 and np.array_equal(found.arrays["images"], images)


def test_progress_sums_to_the_work(sd1):
    for options in ({}, {"prompts": 2}, {"prompts": 4}):
        done: list[int] = []
        probe(**options).measure(sd1, request(done=done), {})
        assert sum(done) == probe(**options).work()


def test_batches_change_nothing(sd1, monkeypatch):
    texts, ids = [TEXTS[i % 5] for i in range(9)], [f"p{i}" for i in range(9)]
    whole = probe(shown=4).measure(sd1, request(texts, ids), {})
    monkeypatch.setattr(Base, "exact_rows", 4)
    parts = probe(shown=4).measure(sd1, request(texts, ids), {})
    for part in whole.values:
        assert np.allclose(whole.values[part], parts.values[part], rtol=1e-5, equal_nan=True)
    assert np.array_equal(parts.arrays["index"], whole.arrays["index"]) and len(parts.arrays["images"]) == len(parts.arrays["mean"]) == 4


def test_no_prompt_says_the_word(sd1):
    found = probe().measure(sd1, request(["c", "d"], ["p0", "p1"]), {})
    assert all(np.isnan(v).all() and len(v) == 2 for v in found.values.values()) and found.arrays == {} and len(found.clusters) == 2
    assert sd1.evaluations == 0


class Silencing(Runtime):
    def conditions(self, conditions):
        return [Condition("c") for _ in conditions]


def test_an_erasure_that_takes_the_word_out_of_the_prompt_leaves_no_map(sd1):
    sd1.runtime = Silencing()
    found = probe().measure(sd1, request(), {})
    assert np.isnan(found.values[""]).all() and not found.arrays["mean"].any()


def test_a_word_that_lost_its_keys_is_flat(sd1):
    """Keys of zero: all tokens are alike to every query."""
    for site in sd1.attention_sites():
        site.module.to_k.weight.data = torch.zeros_like(site.module.to_k.weight)
    found = probe().measure(sd1, request(["ab c"], ["p"]), {})
    assert found.values[""] == pytest.approx([1]) and found.values["heads"] == pytest.approx([1]) and found.values["contrast"] == pytest.approx([0], abs=1e-5)


def test_steps_place_and_shown(sd1):
    assert probe().protocol == "attention_map@entropy-all-20prompts"
    assert probe(place="down+up", steps=50).protocol == "attention_map@entropy-down+up-20prompts-50steps"
    done = probe(steps=3, place="down", shown=0).measure(sd1, request(["ab"], ["p"]), {})
    assert sd1.evaluations == 6 and done.arrays == {}
    maps = attribution_maps(sd1, [Condition("ab")], ["ab"], [10], SAMPLER.model_copy(update={"steps": 3}), "down")
    assert done.values[""] == pytest.approx(normalised_entropy(maps.mean))


def test_presets_are_valid_and_it_describes():
    presets = yaml.safe_load((files("conceptbench.metrics") / "presets" / "attention_map.yaml").read_text())
    assert list(presets) == ["default", "kpop"] and all(p["note"] for p in presets.values())
    made = {n: AttentionEntropy(AttentionEntropy.Config(**p["options"]), NONE) for n, p in presets.items()}
    assert made["default"].config == AttentionEntropy.Config() and made["kpop"].config.steps == 50
    assert probe().better("target") == probe().better("retained") == "neither" and probe().applies(CONCEPT, "retained")
