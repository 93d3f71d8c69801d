from __future__ import annotations

import warnings

import pytest
import torch
from erasing import KEPT, SAMPLER, TARGET, PlainContext, assert_base_untouched, request, snapshot

from conceptbench.core.errors import UserInputError
from conceptbench.core.schemas import Sampler
from conceptbench.erasers.sld import SLD, SafeGuidance, SLDConfig
from conceptbench.models.conditions import Condition
from conceptbench.models.erasure import Erasure

STRONG = {"warmup": 2, "scale": 2000.0, "threshold": 0.025, "momentum_scale": 0.5, "momentum": 0.7}


def erased(base, options, targets=(TARGET,)):
    return SLD().erase(base, request(*targets), SLDConfig(**options), PlainContext())


@pytest.mark.parametrize("options", [STRONG, {**STRONG, "scale": 3.0, "threshold": 0.3}, SLD.variants["medium"] | {"warmup": 1}])
def test_equals_diffusers_safe_pipeline(sd1, options):
    from diffusers import StableDiffusionPipelineSafe

    parts = {k: v for k, v in sd1.pipeline.components.items() if k not in ("image_encoder",)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        safe = StableDiffusionPipelineSafe(**parts, requires_safety_checker=False)
    safe.set_progress_bar_config(disable=True)
    safe.safety_concept = "ab"
    kept = {}

    def keep(_step, _t, latents):
        kept["latents"] = latents

    seeds, sampler = [3, 5], Sampler(scheduler="ddim", steps=8, guidance=5.0)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        safe(
            ["cd", "ef gh"],
            num_inference_steps=8,
            guidance_scale=5.0,
            latents=sd1.initial_noise(seeds),
            callback=keep,
            sld_guidance_scale=options["scale"],
            sld_warmup_steps=options["warmup"],
            sld_threshold=options["threshold"],
            sld_momentum_scale=options["momentum_scale"],
            sld_mom_beta=options["momentum"],
            output_type="np",
        )
    conditions = [Condition("cd"), Condition("ef gh")]
    plain = sd1.sample(conditions, seeds, sampler, until=8)
    with erased(sd1, options).applied(sd1):
        ours = sd1.sample(conditions, seeds, sampler, until=8)
        again = sd1.sample(conditions, seeds, sampler, until=8)  # the momentum does not outlive a call
    assert (ours - kept["latents"]).abs().max() < 2e-5 * kept["latents"].abs().max()
    assert not torch.allclose(ours, plain, atol=1e-2) and torch.equal(ours, again)


def test_guidance_step_by_step_by_hand():
    c = {"text": "x", "warmup": 1, "scale": 2.0, "threshold": 0.1, "momentum_scale": 0.3, "momentum": 0.4}
    runtime, one = SafeGuidance(c), torch.ones(1, 1, 1, 1)

    def at(step, u, t, s):
        return float(runtime.guide(u * one, t * one, s * one, 2 * one, step))

    # step 0: distance -0.2, weight 0.4, safety 0.4 * (0.7 - 0) = 0.28, warm-up: plain guidance 0 + 2 * 0.5; momentum 0.6 * 0.28
    assert at(0, 0.0, 0.5, 0.7) == pytest.approx(1.0)
    # step 1: weight min(2 * 0.9, 1) = 1, safety 1.0 + 0.3 * 0.168
    assert at(1, 0.0, 0.1, 1.0) == pytest.approx(2 * (0.1 - (1.0 + 0.3 * 0.168)))
    momentum = 0.4 * 0.168 + 0.6 * (1.0 + 0.3 * 0.168)
    # step 2: the prompt exceeds the text by the threshold: only the momentum is left
    assert at(2, 0.2, 0.9, 0.7) == pytest.approx(0.2 + 2 * (0.7 - 0.3 * momentum))
    assert at(0, 0.0, 0.5, 0.7) == pytest.approx(1.0) and at(1, 0.0, 0.1, 1.0) == pytest.approx(2 * (0.1 - 1.0504))  # begun anew


def test_changes_no_weight_and_needs_guidance(base):
    before = snapshot(base)
    erasure = erased(base, {"warmup": 0})
    assert erasure.changes == [] and SLD.supports.needs_cfg and erasure.size_bytes() == 0
    condition, off = [Condition("cd")], Sampler(steps=4, guidance=1.0)
    plain, unguided = base.sample(condition, [1], SAMPLER, until=4), base.sample(condition, [1], off, until=4)
    with erasure.applied(base):
        assert not torch.allclose(base.sample(condition, [1], SAMPLER, until=4), plain, atol=1e-3)
        assert torch.equal(base.sample(condition, [1], off, until=4), unguided)
    assert torch.equal(base.sample(condition, [1], SAMPLER, until=4), plain)
    assert_base_untouched(base, before)


def test_text_and_file(sd1, tmp_path):
    assert erased(sd1, {}, (TARGET, KEPT)).runtime.config["text"] == "ab, ef"
    mine = erased(sd1, {"text": "something else", "warmup": 0})
    mine.save(tmp_path / "e.safetensors")
    back = Erasure.load(tmp_path / "e.safetensors")
    assert back.runtime == mine.runtime and back.weights_hash() == mine.weights_hash() != erased(sd1, {"warmup": 0}).weights_hash()
    assert SafeGuidance(back.runtime.config).extra_texts([Condition("a"), Condition("b")]) == ["something else"] * 2


def test_a_warm_up_without_end_is_refused(sd1):
    with pytest.raises(UserInputError, match=r"after 10 steps \(warmup\), but the suite samples with 4"):
        SLD.check(sd1, request(), SLDConfig())
    SLD.check(sd1, request(), SLDConfig(warmup=3))


@pytest.mark.parametrize(
    ("variant", "numbers"),
    [
        ("medium", (10, 1000, 0.01, 0.3, 0.4)),
        ("weak", (15, 200, 0, 0, 0)),
        ("weak-diffusers", (15, 20, 0, 0, 0)),
        ("strong", (7, 2000, 0.025, 0.5, 0.7)),
        ("max", (0, 5000, 1.0, 0.5, 0.7)),
    ],
)
def test_variants_are_the_papers(variant, numbers):
    from diffusers.pipelines.deprecated.stable_diffusion_safe import SafetyConfig

    from conceptbench.engine.lineup import resolve

    c = resolve(f"sld-{variant}:paper", family="sd1", tier="paper").config
    assert (c.warmup, c.scale, c.threshold, c.momentum_scale, c.momentum) == numbers and c.text is None
    library = getattr(SafetyConfig, variant.removesuffix("-diffusers").upper())
    assert (variant == "weak") is (tuple(library.values()) != numbers)
    mini = resolve(f"sld-{variant}:mini", family="sd1", tier="mini").config
    assert mini == c.model_copy(update={"warmup": c.warmup // 5})
    assert "nudity" in resolve(f"sld-{variant}:i2p", family="sd1", tier="paper").config.text
