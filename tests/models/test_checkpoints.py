from __future__ import annotations

import json
import pickle
import shutil

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from conceptbench.core.errors import UserInputError
from conceptbench.core.files import key_of
from conceptbench.models.checkpoints import load_checkpoint, notes_of
from conceptbench.models.erasure import Change, Erasure, RuntimeSpec
from conceptbench.models.families import hash_tensors, load_base, load_pipeline
from conceptbench.models.ldm import unet_names

INNER = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3"}


# -- what people have ------------------------------------------------------------------------------------------------------
def noisy(state, match="", scale=0.1, seed=5):
    """A state dict with some tensors changed, as a training would."""
    generator = torch.Generator().manual_seed(seed)
    return {n: t + scale * torch.randn(t.shape, generator=generator) if match in n else t.clone() for n, t in state.items()}


def weights(base, component="unet"):
    return {n: p.detach().clone() for n, p in base.modules()[component].named_parameters()}


def assert_applies(base, erasure, expected, component="unet"):
    """With the erasure the base has exactly these weights, and all its old ones after."""
    before = weights(base, component)
    with erasure.applied(base):
        now = weights(base, component)
        for name, tensor in {**before, **expected}.items():
            assert torch.equal(now[name], tensor), name
    assert all(torch.equal(before[n], t) for n, t in weights(base, component).items())


def original_unet(base, state):
    """By original names, with the prefix of a whole file."""
    return {f"model.diffusion_model.{o}": state[n] for o, n in unet_names(base.unet).items() if n in state}


def original_vae(state):
    """The autoencoder's original names, by the published script's rules; attention as 1x1 convolutions."""
    levels = 1 + max(int(n.split(".")[2]) for n in state if ".up_blocks." in n)
    out = {}
    for name, tensor in state.items():
        new, p = name, name.split(".")
        if p[1:2] == ["down_blocks"]:
            new = ".".join([p[0], "down", p[2], *(["downsample"] if p[3] == "downsamplers" else ["block", p[4]]), *p[5:]])
        elif p[1:2] == ["up_blocks"]:
            new = ".".join([p[0], "up", str(levels - 1 - int(p[2])), *(["upsample"] if p[3] == "upsamplers" else ["block", p[4]]), *p[5:]])
        elif p[1:2] == ["mid_block"]:
            new = ".".join([p[0], "mid", *([f"block_{int(p[3]) + 1}"] if p[2] == "resnets" else ["attn_1"]), *p[4:]])
        for ours, theirs in {
            "conv_norm_out": "norm_out",
            "conv_shortcut": "nin_shortcut",
            "group_norm": "norm",
            "to_q": "q",
            "to_k": "k",
            "to_v": "v",
            "to_out.0": "proj_out",
        }.items():
            new = new.replace(f".{ours}.", f".{theirs}.")
        if ".attn_1." in new and tensor.dim() == 2:
            tensor = tensor[:, :, None, None]
        out[f"first_stage_model.{new}"] = tensor
    return out


def original_text(state, prefix):
    return {f"{prefix}transformer.text_model.{n.removeprefix('text_model.')}": t for n, t in state.items()}


def original_open_clip(state, prefix):
    """OpenCLIP's names: one matrix for q, k and v; the projection transposed."""
    state = {n.removeprefix("text_model."): t for n, t in state.items()}
    out = {}
    for name, tensor in state.items():
        if ".k_proj." in name or ".v_proj." in name:
            continue
        new = name
        for ours, theirs in {
            "encoder.layers.": "transformer.resblocks.",
            "layer_norm1": "ln_1",
            "layer_norm2": "ln_2",
            "mlp.fc1": "mlp.c_fc",
            "mlp.fc2": "mlp.c_proj",
            "self_attn.": "attn.",
            "final_layer_norm": "ln_final",
            "embeddings.token_embedding": "token_embedding",
            "embeddings.position_embedding.weight": "positional_embedding",
            "text_projection.weight": "text_projection",
        }.items():
            new = new.replace(ours, theirs)
        if ".q_proj." in name:
            tensor = torch.cat([state[name.replace("q_proj", f"{x}_proj")] for x in "qkv"])
            new = new.replace("q_proj.", "in_proj_")
        out[f"{prefix}model.{new}"] = tensor.T.contiguous() if new == "text_projection" else tensor
    return out


def original(base, states):
    """A whole original file of a base, with tensors in it that nobody needs."""
    file = original_unet(base, states["unet"]) | original_vae(states["vae"])
    if base.info.family == "sd1":
        file |= original_text(states["text_encoder"], "cond_stage_model.")
        file["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(16)[None]
    elif base.info.family == "sd2":
        file |= original_open_clip(states["text_encoder"], "cond_stage_model.")
    else:
        file |= original_text(states["text_encoder"], "conditioner.embedders.0.")
        file |= original_open_clip(states["text_encoder_2"], "conditioner.embedders.1.")
    return {k: t.contiguous() for k, t in file.items()} | {"betas": torch.ones(3), "model_ema.decay": torch.tensor(0.5)}


def put(content, path, **metadata):
    if path.suffix == ".safetensors":
        save_file({k: t.contiguous() for k, t in content.items()}, path, metadata=metadata or None)
    else:
        torch.save(content, path)
    return path


# -- forms -----------------------------------------------------------------------------------------------------------------
def test_pipeline_folder(base, tmp_path):
    made = load_pipeline(str(tiny.save(base.info.family, tmp_path / "theirs")))
    expected = {}
    for component in base.modules():
        expected[component] = noisy(weights(base, component), "att")
        getattr(made, component).load_state_dict(expected[component])
    made.save_pretrained(tmp_path / "theirs")
    erasure = load_checkpoint(tmp_path / "theirs", base)
    assert {c.component for c in erasure.changes} == set(base.modules()) and {c.kind for c in erasure.changes} == {"replacement"}
    for component, state in expected.items():
        assert_applies(base, erasure, state, component)
    assert all("att" in n for c in erasure.changes for n in c.tensors)
    meta = erasure.meta["checkpoint"]
    assert meta["form"] == "diffusers pipeline" and meta["file"] == "theirs" and set(meta["sha256"]) >= {"unet/diffusion_pytorch_model.safetensors"}
    assert meta["tensors"]["read"] == sum(len(s) for s in expected.values()) and meta["base"] == erasure.meta["base"] == base.info.components
    assert str(tmp_path) not in json.dumps(erasure.meta)


def test_an_unchanged_pipeline_is_an_empty_erasure(sd1, folders):
    erasure = load_checkpoint(folders["sd1"], sd1)
    assert erasure.changes == [] and erasure.meta["checkpoint"]["tensors"]["changed"] == 0


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_folder_with_one_network(sd1, folders, tmp_path, component):
    shutil.copytree(folders["sd1"] / component, tmp_path / "made")
    file = next((tmp_path / "made").glob("*.safetensors"))
    state = noisy(load_file(file), "weight")
    save_file(state, file, metadata={"format": "pt"})
    assert_applies(sd1, load_checkpoint(tmp_path / "made", sd1), state, component)


def test_a_training_folder_with_subfolders_and_shards(sd1, tmp_path):
    state = noisy(weights(sd1), "attn2")
    (tmp_path / "unet").mkdir()
    names = list(state)
    for i, part in enumerate((names[:100], names[100:])):
        save_file({n: state[n] for n in part}, tmp_path / "unet" / f"diffusion_pytorch_model-0000{i + 1}-of-00002.safetensors")
    assert_applies(sd1, load_checkpoint(tmp_path, sd1), state)
    next((tmp_path / "unet").glob("*-00002-*")).unlink()
    with pytest.raises(UserInputError, match="only 1 of 2 shards"):
        load_checkpoint(tmp_path, sd1)


NAMINGS = {
    "diffusers": lambda base, s: s,
    "unet.": lambda base, s: {f"unet.{n}": t for n, t in s.items()},
    "module.": lambda base, s: {f"module.{n}": t for n, t in s.items()},
    "original": original_unet,
    "original without prefix": lambda base, s: {k.removeprefix("model.diffusion_model."): t for k, t in original_unet(base, s).items()},
    "diffusion_model.": lambda base, s: {k.removeprefix("model."): t for k, t in original_unet(base, s).items()},
}


@pytest.mark.parametrize("part", ["", "attn2", "attn2.to_v"])
@pytest.mark.parametrize("naming", NAMINGS)
def test_state_dict_in_every_naming(base, tmp_path, naming, part):
    """Whole, or only what a method trains, as ESD releases it."""
    state = {n: t for n, t in noisy(weights(base), part).items() if part in n}
    path = put(NAMINGS[naming](base, state), tmp_path / "made.safetensors")
    erasure = load_checkpoint(path, base)
    assert sorted(n for c in erasure.changes for n in c.tensors) == sorted(state)
    assert_applies(base, erasure, state)


WRAPPINGS = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"epoch": 3, "state_dict": s, "optimizer_states": [{"state": {0: torch.ones(1)}}], "callbacks": {"best": torch.ones(1)}},
    "unet": lambda s: {"unet": s, "step": 7},
    "nested": lambda s: {
        f"unet.{n.rsplit('.', 1)[0]}": {m.rsplit(".", 1)[1]: t for m, t in s.items() if m.rsplit(".", 1)[0] == n.rsplit(".", 1)[0]} for n in s
    },
    "parameters": lambda s: {n: torch.nn.Parameter(t) for n, t in s.items()},
}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".safetensors.but.not"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_pickles_of_tensors_in_every_wrapping(sd1, tmp_path, suffix, wrapping):
    state = {n: t for n, t in noisy(weights(sd1), "attn2").items() if "attn2" in n}
    path = put(WRAPPINGS[wrapping](state), tmp_path / f"made{suffix}")
    erasure = load_checkpoint(path, sd1)
    assert_applies(sd1, erasure, state)
    path.write_bytes(b"")  # the erasure must not live in the file
    assert_applies(sd1, erasure, state)


def test_old_torch_files_and_numpy_numbers(sd1, tmp_path):
    import numpy as np

    state = {n: t for n, t in noisy(weights(sd1), "attn2").items() if "attn2" in n}
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": state, "loss": np.float64(0.5), "step": np.int64(3)}, tmp_path / "lightning.ckpt")
    for name in ("old.pt", "lightning.ckpt"):
        assert_applies(sd1, load_checkpoint(tmp_path / name, sd1), state)


def test_several_networks_in_one_state_dict(sd1, tmp_path):
    unet, text = noisy(weights(sd1), "attn2"), noisy(weights(sd1, "text_encoder"), "mlp")
    file = {f"unet.{n}": t for n, t in unet.items()} | {f"text_encoder.text_model.{n}": t for n, t in text.items()}
    for content in (file, {"unet": unet, "text_encoder": text}):
        erasure = load_checkpoint(put(content, tmp_path / ("a.safetensors" if content is file else "a.pt")), sd1)
        assert_applies(sd1, erasure, unet)
        assert_applies(sd1, erasure, text, "text_encoder")


def test_a_text_encoder_alone_is_recognised(base, tmp_path):
    state = noisy(weights(base, "text_encoder"), "mlp")
    older = {f"text_encoder.text_model.{n}": t for n, t in state.items()}
    assert_applies(base, load_checkpoint(put(older, tmp_path / "t.safetensors"), base), state, "text_encoder")
    if base.info.family != "sdxl":
        bare = {k.removeprefix("text_encoder."): t for k, t in older.items()}
        assert_applies(base, load_checkpoint(put(bare, tmp_path / "b.safetensors"), base), state, "text_encoder")


def test_the_autoencoders_old_names(sd1, tmp_path):
    state = noisy(weights(sd1, "vae"), "to_q")
    old = {
        n.replace(".to_q.", ".query.").replace(".to_k.", ".key.").replace(".to_v.", ".value.").replace(".to_out.0.", ".proj_attn."): t for n, t in state.items()
    }
    assert set(old) != set(state)
    assert_applies(sd1, load_checkpoint(put(old, tmp_path / "vae.bin"), sd1), state, "vae")


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_whole_original_checkpoint(base, tmp_path, suffix):
    states = {c: noisy(weights(base, c), "weight", seed=i) for i, c in enumerate(base.modules())}
    file = original(base, states)
    path = put({"state_dict": file, "global_step": 5} if suffix == ".ckpt" else file, tmp_path / f"sd{suffix}")
    erasure = load_checkpoint(path, base)
    for component, state in states.items():
        assert_applies(base, erasure, state, component)
    meta = erasure.meta["checkpoint"]
    assert meta["form"] == "original checkpoint" and "betas" in meta["ignored"]["first"] and any("EMA" in n for n in notes_of(erasure))


def test_whole_original_equals_diffusers_loader(sd1, folders, tmp_path):
    """The oracle for the names: diffusers reads the same file."""
    from diffusers import StableDiffusionPipeline

    states = {c: noisy(weights(sd1, c), "weight") for c in sd1.modules()}
    path = put(original(sd1, states), tmp_path / "sd.safetensors")
    theirs = StableDiffusionPipeline.from_single_file(str(path), config=str(folders["sd1"]), local_files_only=True, safety_checker=None)
    erasure = load_checkpoint(path, sd1)
    for component in sd1.modules():
        assert_applies(sd1, erasure, dict(getattr(theirs, component).named_parameters()), component)


def test_unet_names_equal_diffusers_converter_and_do_not_lose_partial_files(base):
    """diffusers' converter agrees on whole files; from cross-attention alone it drops tensors without a word."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    state = weights(base)
    theirs = convert_ldm_unet_checkpoint(original_unet(base, state), dict(base.unet.config))
    assert set(theirs) == set(state) and all(torch.equal(theirs[n], t) for n, t in state.items())
    part = {n: t for n, t in state.items() if "attn2" in n}
    if base.info.family != "sdxl":  # there it fails outright
        assert len(convert_ldm_unet_checkpoint(original_unet(base, part), dict(base.unet.config))) < len(part)


def test_unet_names_where_some_blocks_have_no_attention():
    """As in Stable Diffusion itself: the outermost or innermost level has none, two layers a block."""
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    unet = UNet2DConditionModel(
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8, 16),
        layers_per_block=2,
        cross_attention_dim=8,
        norm_num_groups=4,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )
    names, state = unet_names(unet), unet.state_dict()
    theirs = convert_ldm_unet_checkpoint({f"model.diffusion_model.{o}": state[n] for o, n in names.items()}, dict(unet.config))
    assert len(names) == len(state) == len(theirs) and all(torch.equal(theirs[n], t) for n, t in state.items())
    assert "output_blocks.2.1.conv.weight" in names and "output_blocks.5.2.conv.weight" in names


def test_erasure_files_of_ours(sd1, tmp_path):
    name, weight = next(iter(sd1.parameters("kv").items()))
    made = Erasure(
        [Change("unet", "additive", {name: torch.ones_like(weight)}, "dog")],
        RuntimeSpec("negative-prompt", {"text": "x"}),
        meta={"eraser": "me", "base": {"unet": "x"}},
    )
    made.save(tmp_path / "e.bin")
    erasure = load_checkpoint(tmp_path / "e.bin", sd1)
    assert erasure.weights_hash() == made.weights_hash() and erasure.meta["eraser"] == "me" and erasure.meta["base"] == {"unet": "x"}
    assert erasure.meta["checkpoint"]["form"] == "erasure" and "made for another base: unet" in notes_of(erasure)[0]


# -- rounding --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_storing_in_half_precision_is_no_change(sd1, tmp_path, dtype):
    state = noisy(weights(sd1), "attn2.to_k", scale=0.5)
    half = {n: t.to(dtype) for n, t in state.items()}
    erasure = load_checkpoint(put(half, tmp_path / "half.safetensors"), sd1)
    assert {n for c in erasure.changes for n in c.tensors} == {n for n in state if "attn2.to_k" in n}
    assert_applies(sd1, erasure, {n: half[n].float() for n in state if "attn2.to_k" in n})
    assert erasure.meta["checkpoint"]["tensors"]["rounded"] > 0 and "rounding" in notes_of(erasure)[0]
    assert erasure.meta["checkpoint"]["dtypes"] == [str(dtype).removeprefix("torch.")]


def test_the_last_bit_and_the_sign_of_zero_count_in_float32(sd1, tmp_path):
    state = weights(sd1)
    one, two = [n for n in state if "attn2.to_k.weight" in n][:2]
    state[one].view(torch.int32)[0, 0] += 1
    sd1.unet.get_parameter(two).data[0, 0] = 0.0
    state[two][0, 0] = -0.0
    erasure = load_checkpoint(put(state, tmp_path / "s.safetensors"), sd1)
    assert set(erasure.changes[0].tensors) == {one, two} and torch.equal(erasure.changes[0].tensors[one], state[one])


def test_a_full_precision_file_against_a_half_precision_base(folders):
    base = load_base(str(folders["sd1"]), dtype=torch.float16)
    erasure = load_checkpoint(folders["sd1"], base)
    assert erasure.changes == [] and erasure.meta["checkpoint"]["tensors"]["rounded"] > 0


# -- errors ----------------------------------------------------------------------------------------------------------------
def refused(base, path, *words):
    before = weights(base)
    with pytest.raises(UserInputError) as caught:
        load_checkpoint(path, base)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert caught.value.exit_code == 2 and all(torch.equal(before[n], t) for n, t in weights(base).items())


def test_another_architecture(sd1, tmp_path):
    other = tiny._unet(48).state_dict()
    refused(
        sd1,
        put(other, tmp_path / "o.safetensors"),
        "attn2.to_k.weight is (8, 48) in the file and (8, 32) in the base",
        "of 286 tensors do not fit",
        "give the base",
    )


def test_additional_tensors_are_not_dropped(sd1, tmp_path):
    state = weights(sd1) | {"down_blocks.0.adapter.weight": torch.ones(2)}
    refused(sd1, put(state, tmp_path / "a.safetensors"), "1 of 287 tensors that the base has not: down_blocks.0.adapter.weight")


def test_another_family_as_pipeline(sd1, folders):
    refused(sd1, folders["sdxl"], "text_encoder_2", "family sd1")
    refused(sd1, folders["sd2"], "another architecture", "is of another")


def test_a_pipeline_with_another_tokenizer_or_schedule(sd1, tmp_path):
    made = tiny.save("sd1", tmp_path / "p")
    tokenizer = load_pipeline(str(made)).tokenizer
    tokenizer.add_tokens(["<dog>"])
    tokenizer.save_pretrained(made / "tokenizer")
    refused(sd1, made, "another tokenizer", "'<dog>'")
    made = tiny.save("sd1", tmp_path / "q")
    file = made / "scheduler" / "scheduler_config.json"
    file.write_text(file.read_text().replace('"epsilon"', '"v_prediction"'))
    refused(sd1, made, "prediction_type is 'v_prediction', but 'epsilon' in the base")
    (made / "tokenizer" / "tokenizer.json").write_text("{")
    refused(sd1, made, "no readable tokenizer")


def test_a_pipeline_with_the_same_shapes_but_another_config(sd1, tmp_path):
    for component, old, new, words in (
        ("text_encoder", '"quick_gelu"', '"gelu"', "hidden_act is 'gelu' there and 'quick_gelu' in the base"),
        ("vae", '"scaling_factor": 0.5', '"scaling_factor": 0.18', "scaling_factor"),
    ):
        made = tiny.save("sd1", tmp_path / component)
        file = made / component / "config.json"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        refused(sd1, made, "another architecture", words)
        refused(sd1, made / component, words)


def test_a_pipeline_that_was_copied_in_part(sd1, tmp_path):
    made = tiny.save("sd1", tmp_path / "p")
    state = load_file(made / "unet" / "diffusion_pytorch_model.safetensors")
    state.pop("conv_in.weight")
    save_file(state, made / "unet" / "diffusion_pytorch_model.safetensors")
    refused(sd1, made, "lacks 1 of the base's 286 tensors: conv_in.weight")
    shutil.rmtree(made / "unet")
    refused(sd1, made, "lists 'unet', but there is no such folder")
    (made / "model_index.json").write_text("{")
    refused(sd1, made, "is not JSON")


def test_no_key_in_common(sd1, tmp_path):
    refused(
        sd1,
        put({"layer.weight": torch.ones(2), "emb_params": torch.ones(1)}, tmp_path / "x.safetensors"),
        "no tensor in common",
        "layer.weight",
        "conv_in.weight",
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("form", ["state", "lora", "ours"])
def test_weights_that_are_not_finite(sd1, tmp_path, value, form):
    name = next(iter(sd1.parameters("kv")))
    bad = torch.ones_like(sd1.unet.get_parameter(name))
    bad[0, 0] = value
    path = tmp_path / "bad.safetensors"
    if form == "ours":
        Erasure([Change("unet", "additive", {name: bad})]).save(path)
    elif form == "state":
        put({name: bad}, path)
    else:
        put({f"unet.{name.removesuffix('.weight')}.lora_A.weight": bad, f"unet.{name.removesuffix('.weight')}.lora_B.weight": bad.T.contiguous()}, path)
    refused(sd1, path, name.removesuffix(".weight"), f"1 of {bad.numel()} values are NaN or infinite")


def test_quantised_weights(sd1, tmp_path):
    name = next(iter(sd1.parameters("kv")))
    refused(sd1, put({name: torch.ones_like(sd1.unet.get_parameter(name)).to(torch.int8)}, tmp_path / "q.safetensors"), "stored as int8")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, 0.99])
def test_truncated_files(sd1, tmp_path, suffix, keep):
    path = put(weights(sd1), tmp_path / f"t{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    refused(sd1, path, str(path), *(["is empty"] if keep == 0 else []))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"GGUF\x03", "quantised"),
        (b"PK\x03\x04" + b"\0" * 200, "truncated or damaged"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "unknown format"),
        (b"\x80\x02" + b"\xff" * 50, ""),
        (b'\x10\0\0\0\0\0\0\0{"a":1}   \xff\xff\xff\xff\xff\xff', "truncated or damaged"),
    ],
)
def test_files_that_are_no_weights(sd1, tmp_path, content, words):
    (tmp_path / "x.pt").write_bytes(content)
    refused(sd1, tmp_path / "x.pt", "x.pt", words)


def test_pickles_without_named_tensors(sd1, tmp_path):
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    refused(sd1, tmp_path / "list.pt", "holds a list", "state dict")
    refused(sd1, tmp_path / "none.pt", "holds no tensors", "epoch")


class Evil:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


class EvilSystem(Evil):
    def __reduce__(self):
        import os

        return (os.system, (f"touch {self.target}",))


@pytest.mark.parametrize(("kind", "name"), [(Evil, "io.open"), (EvilSystem, "posix.system")])
@pytest.mark.parametrize("writing", ["zip", "legacy", "plain", "plain 0", "in a pipeline"])
def test_a_malicious_pickle_does_nothing(sd1, tmp_path, kind, name, writing):
    target, path = tmp_path / "pwned", tmp_path / "evil.pt"
    content = {"conv_in.weight": torch.ones(2), "x": kind(target)}
    if writing == "in a pipeline":
        folder = tiny.save("sd1", tmp_path / "p")
        (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        torch.save(content, folder / "unet" / "diffusion_pytorch_model.bin")
        refused(sd1, folder, name)
    elif writing.startswith("plain"):
        path.write_bytes(pickle.dumps(kind(target), protocol=0 if writing == "plain 0" else 2))
        refused(sd1, path, str(path))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writing == "zip")
        refused(sd1, path, name, "nothing was run")
    assert not target.exists()


def test_all_of_a_pickles_calls_are_named(sd1, tmp_path):
    torch.save([Evil(tmp_path / "a"), EvilSystem(tmp_path / "b")], tmp_path / "evil.pt")
    refused(sd1, tmp_path / "evil.pt", "io.open, posix.system")
    assert [p.name for p in tmp_path.iterdir()] == ["evil.pt"]


def test_a_pickled_network_is_named(sd1, tmp_path):
    torch.save(sd1.unet.conv_in, tmp_path / "m.pt")
    refused(sd1, tmp_path / "m.pt", "torch.nn.modules.conv.Conv2d", "save_file(unet.state_dict()")


def test_missing_paths_and_folders_without_weights(sd1, tmp_path):
    (tmp_path / "esd-dog.safetensors").write_bytes(b"x")
    refused(sd1, tmp_path / "esd_dog.safetensor", "no such checkpoint", "did you mean", "esd-dog.safetensors")
    refused(sd1, tmp_path / "nowhere" / "x.pt", "there is no folder")
    (tmp_path / "empty").mkdir()
    refused(sd1, tmp_path / "empty", "has no weights in it", "it is empty")
    (tmp_path / "empty" / "inner").mkdir()
    put({"a": torch.ones(1)}, tmp_path / "empty" / "inner" / "w.safetensors")
    refused(sd1, tmp_path / "empty", "did you mean", "inner")
    for name in ("one.pt", "two.pt"):
        torch.save({"a": torch.ones(1)}, tmp_path / "empty" / "inner" / name)
    (tmp_path / "empty" / "inner" / "w.safetensors").unlink()
    refused(sd1, tmp_path / "empty" / "inner", "several files of weights: one.pt, two.pt")


def test_damaged_erasures_of_ours(sd1, tmp_path):
    def header(text):
        tensors = {"change/0/x": torch.ones(1)}
        checksum = key_of({"tensors": hash_tensors(tensors), "header": json.loads(text)}) if text != "{" else ""
        save_file(tensors, tmp_path / "e.safetensors", metadata={"conceptbench": text, "sha256": checksum})
        return tmp_path / "e.safetensors"

    change = '{"component":"unet","kind":"%s","concept":null}'
    rest = '"runtime":%s,"meta":{}}'
    refused(sd1, header("{"), "not a readable erasure")
    whole = Erasure([Change("unet", "additive", {"conv_in.bias": torch.ones(8)})])
    whole.save(tmp_path / "flipped.safetensors")
    data = bytearray((tmp_path / "flipped.safetensors").read_bytes())
    for place in (len(data) - 3, data.index(b"additive")):  # a tensor's byte, and a letter of the header
        damaged = bytearray(data)
        damaged[place] ^= 1
        (tmp_path / "flipped.safetensors").write_bytes(bytes(damaged))
        refused(sd1, tmp_path / "flipped.safetensors", "not a readable erasure")
    refused(sd1, header('{"changes":[{}],' + rest % "null"), "not a readable erasure")
    refused(sd1, header('{"changes":[' + change % "strange" + "]," + rest % "null"), "unknown kind of change 'strange'")
    refused(sd1, header('{"changes":[' + change % "low-rank" + "]," + rest % "null"), "unet.x")
    refused(sd1, header('{"changes":[],' + rest % '{"name":"negative-promt","config":{}}'), "did you mean 'negative-prompt'")


# -- LoRA ------------------------------------------------------------------------------------------------------------------
LAYERS = {
    "unet": [
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
        "up_blocks.1.attentions.0.proj_in",
        "down_blocks.1.resnets.0.conv1",
        "up_blocks.0.upsamplers.0.conv",
        "conv_in",
    ],
    "text_encoder": ["encoder.layers.1.self_attn.q_proj", "encoder.layers.0.mlp.fc1"],
}


def factors(base, rank=3):
    """(component, module) -> A, B in the layer's own shapes."""
    generator, made = torch.Generator().manual_seed(7), {}
    for component, layers in LAYERS.items():
        for layer in layers:
            w = base.modules()[component].get_parameter(f"{layer}.weight")
            extra = (1, 1) if w.dim() == 4 else ()
            made[component, layer] = torch.randn((rank, *w.shape[1:]), generator=generator), torch.randn((w.shape[0], rank, *extra), generator=generator)
    return made


def kohya(base, made, *, names=None, alpha=None, text="lora_te"):
    out = {}
    for (component, layer), (a, b) in made.items():
        stem = f"lora_unet_{(names or {}).get(layer, layer)}" if component == "unet" else f"{text}_text_model_{layer}"
        stem = stem.replace(".", "_")
        out |= {f"{stem}.lora_down.weight": a, f"{stem}.lora_up.weight": b} | ({f"{stem}.alpha": torch.tensor(alpha)} if alpha else {})
    return out


def peft_names(base, made, *, a="lora_A.weight", b="lora_B.weight"):
    return {f"{c}.{'text_model.' if c != 'unet' else ''}{n}.{k}": t for (c, n), pair in made.items() for k, t in zip((a, b), pair, strict=True)}


def older_names(base, made):
    """diffusers of 2023: attention processors; text layers with their own words."""
    out = {}
    for (c, n), pair in made.items():
        for k, t in zip(("down", "up"), pair, strict=True):
            if c == "unet":
                stem = n.replace(".attn", ".attn").replace(".to_out.0", ".processor.to_out_lora").replace(".to_k", ".processor.to_k_lora")
                out[f"unet.{stem if '.processor.' in stem else stem + '.lora'}.{k}.weight"] = t
            else:
                stem = n.replace("self_attn.q_proj", "self_attn.to_q_lora") if "self_attn" in n else f"{n}.lora_linear_layer"
                out[f"text_encoder.text_model.{stem}.{k}.weight"] = t
    return out


def assert_lora(base, erasure, made, scale):
    """Oracle: the sum over ranks, one outer product after the other."""
    assert {c.kind for c in erasure.changes} == {"low-rank"}
    before = {c: weights(base, c) for c in LAYERS}
    with erasure.applied(base):
        for component in LAYERS:
            for name, now in weights(base, component).items():
                expected = before[component][name].double()
                if (pair := made.get((component, name.removesuffix(".weight")))) is not None:
                    a, b = pair[0].flatten(1).double(), pair[1].flatten(1).double()
                    for r in range(len(a)):
                        expected = expected + scale * (b[:, r, None] * a[None, r]).view(expected.shape)
                    assert not torch.equal(now, before[component][name])
                assert torch.allclose(now.double(), expected, atol=1e-5), name


@pytest.mark.parametrize("form", ["kohya", "kohya alpha", "peft", "peft adapter", "processors"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_lora_in_every_naming(sd1, tmp_path, form, suffix):
    made = factors(sd1)
    content = {
        "kohya": lambda: kohya(sd1, made),
        "kohya alpha": lambda: kohya(sd1, made, alpha=1.5),
        "peft": lambda: peft_names(sd1, made),
        "peft adapter": lambda: peft_names(sd1, made, a="lora_A.default.weight", b="lora_B.default.weight"),
        "processors": lambda: older_names(sd1, made),
    }[form]()
    erasure = load_checkpoint(put(content, tmp_path / f"lora{suffix}"), sd1)
    assert erasure.meta["checkpoint"]["form"] == "lora" and erasure.meta["checkpoint"]["tensors"]["changed"] == len(made)
    assert_lora(sd1, erasure, made, 0.5 if form == "kohya alpha" else 1.0)


def test_lora_by_original_names(folders, tmp_path):
    """kohya trains SDXL on the original UNet and calls its layers so."""
    base = load_base(str(folders["sdxl"]))
    made = {k: v for k, v in factors(base).items()}
    names = {n.removesuffix(".weight"): o.removesuffix(".weight") for o, n in unet_names(base.unet).items()}
    content = kohya(base, made, names=names, alpha=1.5, text="lora_te1")
    assert any("input_blocks" in k for k in content)
    assert_lora(base, load_checkpoint(put(content, tmp_path / "xl.safetensors"), base), made, 0.5)


def test_lora_folder_of_peft_with_its_config(sd1, tmp_path):
    made = {k: v for k, v in factors(sd1).items() if k[0] == "unet" and "attn" in k[1]}
    content = {k.replace("unet.", "base_model.model.", 1): t for k, t in peft_names(sd1, made).items()}
    put(content, tmp_path / "adapter_model.safetensors")
    for config, scale in (
        ({"lora_alpha": 6, "r": 3}, 2.0),
        ({"lora_alpha": 6, "use_rslora": True}, 6 / 3**0.5),
        ({"lora_alpha": 1, "alpha_pattern": {"to_k": 9, "to_out.0": 9}}, 3.0),
    ):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        assert_lora(sd1, load_checkpoint(tmp_path, sd1), made, scale)


def test_lora_equals_peft(sd1, folders, tmp_path):
    """The oracle: diffusers and peft load and fuse the same files, with kohya's alpha and with peft's config in the header."""
    pytest.importorskip("peft")
    made = factors(sd1)
    put(kohya(sd1, made, alpha=1.5), tmp_path / "kohya.safetensors")
    theirs = load_pipeline(str(folders["sd1"]))
    theirs.load_lora_weights(str(tmp_path), weight_name="kohya.safetensors")
    theirs.fuse_lora(components=["unet"])
    theirs.unload_lora_weights()
    fused = dict(theirs.unet.named_parameters())
    with load_checkpoint(tmp_path / "kohya.safetensors", sd1).applied(sd1):
        for name, now in weights(sd1).items():
            assert torch.allclose(now, fused[name], atol=2e-6), name

    from peft import LoraConfig

    theirs = load_pipeline(str(folders["sd1"]))
    theirs.unet.add_adapter(LoraConfig(r=2, lora_alpha=7, target_modules=["to_k", "to_out.0", "conv1"], init_lora_weights=False))
    theirs.unet.save_lora_adapter(tmp_path / "saved")
    theirs.unet.fuse_lora()
    fused = {n.replace(".base_layer.", "."): p for n, p in theirs.unet.named_parameters() if "lora_" not in n}
    erasure = load_checkpoint(tmp_path / "saved", sd1)
    assert erasure.changes
    with erasure.applied(sd1):
        for name, now in weights(sd1).items():
            assert torch.allclose(now, fused[name], atol=2e-6), name


def test_locon_with_a_middle_factor(sd1, tmp_path):
    layer = "down_blocks.1.resnets.0.conv1"
    w = sd1.unet.get_parameter(f"{layer}.weight")
    down, mid, up = torch.randn(3, w.shape[1], 1, 1), torch.randn(3, 3, 3, 3), torch.randn(w.shape[0], 3, 1, 1)
    stem = "lora_unet_" + layer.replace(".", "_")
    path = put({f"{stem}.lora_down.weight": down, f"{stem}.lora_mid.weight": mid, f"{stem}.lora_up.weight": up}, tmp_path / "l.safetensors")
    x, before = torch.randn(1, w.shape[1], 5, 5), w.detach().clone()
    f = torch.nn.functional.conv2d
    expected = f(x, before, padding=1) + f(f(f(x, down), mid, padding=1), up)
    with load_checkpoint(path, sd1).applied(sd1):
        assert torch.allclose(f(x, w, padding=1), expected, atol=1e-4)


def test_lora_of_another_base(sd1, folders, tmp_path):
    made = factors(sd1)
    strange = {("unet", "down_blocks.7.attentions.0.to_k"): (torch.ones(3, 8), torch.ones(8, 3))}
    refused(
        sd1,
        put(kohya(sd1, made | strange), tmp_path / "a.safetensors"),
        "of another base: 1 of 9 modules",
        "down_blocks_7_attentions_0_to_k",
        "the base has e.g.",
    )
    refused(sd1, put({f"transformer.x.{i}.lora_{k}.weight": torch.ones(2, 2) for i in range(2) for k in "AB"}, tmp_path / "flux.safetensors"), "2 of 2 modules")
    wide = {k: (torch.cat([a, a], 1), b) for k, (a, b) in made.items()}
    refused(sd1, put(kohya(sd1, wide), tmp_path / "b.safetensors"), "another architecture", "(3, 64)", "(64, 32)", "8 of 8 modules do not fit")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"lora_unet_conv_in.dora_scale": torch.ones(1)}, "DoRA"),
        ({"lora_unet_conv_in.hada_w1_a": torch.ones(1)}, "LoHa"),
        ({"lora_unet_conv_in.strange": torch.ones(1)}, "neither a factor nor an alpha"),
        ({"lora_unet_conv_out.lora_down.weight": torch.ones(1, 8)}, "only one of the two factors"),
        ({"unet.conv_in.lora_A.weight": torch.ones(3, 4, 3, 3), "unet.conv_in.lora_B.weight": torch.ones(8, 3)}, "twice"),
    ],
)
def test_loras_that_cannot_be_read_whole_are_refused(sd1, tmp_path, extra, words):
    refused(sd1, put(kohya(sd1, factors(sd1)) | extra, tmp_path / "l.safetensors"), words)
