from __future__ import annotations

import pytest
import torch
from calling import call
from safetensors.torch import load_file, save_file

from conceptbench.models.erasure import Change, Erasure, RuntimeSpec

NAME = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.fixture
def cli(monkeypatch, capsys):
    return lambda *arguments: call("export", *arguments, monkeypatch=monkeypatch, capsys=capsys)


@pytest.fixture
def erasure(folders, tmp_path):
    change = Change("unet", "additive", {NAME: torch.ones_like(load_file(folders["sd1"] / "unet" / "diffusion_pytorch_model.safetensors")[NAME])})
    Erasure([change], hidden={"secret": torch.ones(3)}).save(tmp_path / "e.safetensors")
    return tmp_path / "e.safetensors"


def test_export_in_every_form(cli, folders, erasure, tmp_path):
    from diffusers import DiffusionPipeline

    base = ("--base", folders["sd1"])
    before = load_file(folders["sd1"] / "unet" / "diffusion_pytorch_model.safetensors")[NAME]
    code, out, err = cli(erasure, *base, "--output", tmp_path / "folder")
    assert code == 0 and out.strip() == str(tmp_path / "folder") and "1 hidden artefacts are left out" in err
    assert torch.equal(DiffusionPipeline.from_pretrained(tmp_path / "folder").unet.get_parameter(NAME), before + 1)
    code, out, _ = cli(erasure, *base, "--form", "state-dict", "-o", tmp_path / "s.safetensors")
    assert code == 0 and torch.equal(load_file(out.strip())[NAME], before + 1)
    code, out, _ = cli(erasure, *base, "--form", "patch", "-o", tmp_path / "p.safetensors")
    assert code == 0 and Erasure.load(tmp_path / "p.safetensors").hidden == {}


def test_a_foreign_checkpoint_becomes_a_patch(cli, folders, tmp_path):
    state = load_file(folders["sd1"] / "unet" / "diffusion_pytorch_model.safetensors")
    save_file({NAME: state[NAME] + 1}, tmp_path / "esd.safetensors")
    code, _, _ = cli(tmp_path / "esd.safetensors", "--base", folders["sd1"], "--form", "patch", "--output", tmp_path / "p.safetensors")
    assert code == 0 and torch.equal(Erasure.load(tmp_path / "p.safetensors").changes[0].tensors[NAME], state[NAME] + 1)


def test_bad_input_is_exit_code_two(cli, folders, erasure, tmp_path):
    base = ("--base", folders["sd1"])
    Erasure(runtime=RuntimeSpec("negative-prompt", {"text": "x"})).save(tmp_path / "n.safetensors")
    Erasure([Change("unet", "additive", {"conv_in.weight": torch.ones(1)})]).save(tmp_path / "strange.safetensors")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").write_text("x")
    for arguments, words in (
        ((erasure, *base, "--form", "difusers", "-o", tmp_path / "a"), "did you mean 'diffusers'"),
        ((tmp_path / "e.safetensor", *base, "-o", tmp_path / "a"), "did you mean"),
        ((erasure, "--base", "minni", "-o", tmp_path / "a"), "did you mean 'mini'"),
        ((erasure, *base, "-o", tmp_path / "taken"), "--force"),
        ((erasure, *base, "-o", tmp_path / "taken", "--force"), "not an earlier export"),
        ((tmp_path / "n.safetensors", *base, "-o", tmp_path / "a"), "works while sampling"),
        ((tmp_path / "strange.safetensors", *base, "--form", "patch", "-o", tmp_path / "a.safetensors"), "does not fit"),
    ):
        code, out, err = cli(*arguments)
        assert code == 2 and words in err and out == "" and "Traceback" not in err, err
    assert not (tmp_path / "a").exists() and not (tmp_path / "a.safetensors").exists()


def test_force_replaces_an_export(cli, folders, erasure, tmp_path):
    arguments = (erasure, "--base", folders["sd1"], "--output", tmp_path / "out")
    assert cli(*arguments)[0] == 0 and cli(*arguments)[0] == 2 and cli(*arguments, "--force")[0] == 0


def test_the_base_is_only_loaded_for_good_arguments(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("conceptbench.models.families.load_base", lambda *a, **k: pytest.fail("loaded"))
    assert cli(tmp_path / "none.pt", "-o", tmp_path / "o")[0] == 2
