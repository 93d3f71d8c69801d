from __future__ import annotations

import numpy as np
import pytest
import torch

from conceptbench.core.errors import StoreError, UserInputError
from conceptbench.core.schemas import Sampler
from conceptbench.models.conditions import Condition
from conceptbench.models.erasure import Change, Erasure, RuntimeSpec

SAMPLER = Sampler(steps=2, guidance=3.0)


def state(base):
    return {f"{c}.{n}": p.detach().clone() for c, m in base.modules().items() for n, p in m.named_parameters()}


def unchanged(base, before):
    return all(torch.equal(before[k], v) for k, v in state(base).items())


def image(base, text="ab"):
    return base.sample([Condition(text)], [3], SAMPLER)


def delta(base, scale=0.3, concept=None):
    generator = torch.Generator().manual_seed(0)
    tensors = {n: scale * torch.randn(p.shape, generator=generator) for n, p in base.parameters("kv").items()}
    return Change("unet", "additive", tensors, concept)


def test_leaving_restores_every_bit(base):
    before, plain = state(base), image(base)
    with Erasure([delta(base)]).applied(base):
        changed = image(base)
    assert not np.array_equal(plain, changed)
    assert unchanged(base, before) and np.array_equal(image(base), plain)


def test_restored_after_an_error(sd1):
    before = state(sd1)
    with pytest.raises(RuntimeError, match="boom"), Erasure([delta(sd1)]).applied(sd1):
        raise RuntimeError("boom")
    assert unchanged(sd1, before)


def test_a_changed_text_encoder_changes_the_images(base):
    """No stale embeddings: the cache of encoded prompts knows when the text encoder changes, and when it is back."""
    plain = image(base)
    encoder = base.pipeline.text_encoder
    tensors = {
        n: torch.randn(p.shape, generator=torch.Generator().manual_seed(4))
        for n, p in encoder.named_parameters()
        if "layers.0.mlp" in n and n.endswith("weight")
    }
    assert tensors
    with Erasure([Change("text_encoder", "additive", tensors)]).applied(base):
        assert not np.array_equal(image(base), plain)
    assert np.array_equal(image(base), plain)


@pytest.mark.parametrize("kind", ["additive", "low-rank", "replacement", "mask"])
def test_kinds_of_change(sd1, kind):
    name, weight = next(iter(sd1.parameters("kv").items()))
    w, d = weight.detach().clone(), torch.randn(weight.shape)
    a, b = torch.randn(2, w.shape[1]), torch.randn(w.shape[0], 2)
    tensors = {f"{name}::A": a, f"{name}::B": b} if kind == "low-rank" else {name: d}
    expected = {"additive": w + d, "low-rank": w + b @ a, "replacement": d, "mask": w * d}[kind]
    with Erasure([Change("unet", kind, tensors)]).applied(sd1):
        assert torch.allclose(weight.data, expected, atol=1e-6)
    assert torch.equal(weight.data, w)


def test_one_concept_of_several(sd1):
    name, weight = next(iter(sd1.parameters("kv").items()))
    w = weight.detach().clone()
    one, two = torch.ones_like(w), 2 * torch.ones_like(w)
    erasure = Erasure([Change("unet", "additive", {name: one}, "a"), Change("unet", "additive", {name: two}, "b")])
    for concepts, expected in ((None, w + one + two), (["b"], w + two), ([], w)):
        with erasure.applied(sd1, concepts):
            assert torch.equal(weight.data, expected)
    with pytest.raises(UserInputError, match="unknown concept of this erasure 'c'"), erasure.applied(sd1, ["c"]):
        pass


def test_negative_prompt_equals_diffusers(sd1, folders):
    from conceptbench.models.families import load_pipeline

    latents = sd1.initial_noise([3])
    stock = load_pipeline(str(folders["sd1"]))
    theirs = stock("ab", negative_prompt="b a", latents=latents, num_inference_steps=2, guidance_scale=3.0, output_type="np", height=16, width=16).images[0]
    plain = image(sd1)
    with Erasure(runtime=RuntimeSpec("negative-prompt", {"text": "b a"})).applied(sd1):
        ours = image(sd1)[0]
    assert np.abs(ours.astype(int) - (theirs * 255).round().astype(int)).max() <= 1
    assert not np.array_equal(ours, plain[0])


def test_additive_keeps_only_what_changed(sd1):
    before = {n: p.detach().clone() for n, p in sd1.parameters("xattn").items()}
    after = {n: p + (1e-3 if n.endswith("to_k.weight") else 0) for n, p in before.items()}
    erasure = Erasure.additive(before, after)
    assert set(erasure.changes[0].tensors) == {n for n in before if n.endswith("to_k.weight")}
    with erasure.applied(sd1):
        assert all(torch.allclose(p.data, after[n]) for n, p in sd1.parameters("xattn").items())


def test_file_round_trip(sd1, tmp_path):
    erasure = Erasure(
        [delta(sd1, concept="a")], RuntimeSpec("negative-prompt", {"text": "x"}), {"p": torch.ones(2)}, {"h": torch.zeros(1)}, {"eraser": "me", "seconds": 1.5}
    )
    erasure.save(tmp_path / "e.safetensors")
    loaded = Erasure.load(tmp_path / "e.safetensors")
    assert loaded.weights_hash() == erasure.weights_hash() and loaded.meta == erasure.meta
    assert loaded.concepts() == ["a"] and loaded.runtime == erasure.runtime and torch.equal(loaded.hidden["h"], torch.zeros(1))


def test_hash_follows_the_weights_and_not_the_cost(sd1):
    one, two = Erasure([delta(sd1)], meta={"seconds": 1}), Erasure([delta(sd1)], meta={"seconds": 2})
    assert one.weights_hash() == two.weights_hash() != Erasure([delta(sd1, scale=0.31)]).weights_hash()
    assert one.weights_hash() != Erasure([delta(sd1)], RuntimeSpec("negative-prompt", {"text": "x"})).weights_hash()


@pytest.mark.parametrize("content", [b"", b"no safetensors file at all"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "e.safetensors").write_bytes(content)
    with pytest.raises(StoreError, match=r"e\.safetensors is not a readable erasure"):
        Erasure.load(tmp_path / "e.safetensors")


def test_another_base_is_refused_and_left_alone(sd1):
    before = state(sd1)
    strange = Erasure([delta(sd1), Change("unet", "additive", {"no.such.weight": torch.ones(1)})])
    with pytest.raises(UserInputError, match=r"unet\.no\.such\.weight"), strange.applied(sd1):
        pass
    assert unchanged(sd1, before)
