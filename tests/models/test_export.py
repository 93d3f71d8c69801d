from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from conceptbench.core.errors import UserInputError, WriteError
from conceptbench.models import export as module
from conceptbench.models.checkpoints import load_checkpoint
from conceptbench.models.erasure import Change, Erasure, RuntimeSpec
from conceptbench.models.export import FORMS, export_erasure

SECRET = torch.tensor([0.12345, 6.789, -42.5])


def weights(base, component="unet"):
    return {n: p.detach().clone() for n, p in base.modules()[component].named_parameters()}


def erasure_of(base, *components, hidden=True, runtime=None):
    changes = []
    for component in components:
        state = {n: t for n, t in weights(base, component).items() if "att" in n and t.dim() > 1}
        changes.append(
            Change(component, "additive", {n: 0.1 * torch.randn(t.shape, generator=torch.Generator().manual_seed(1)) for n, t in state.items()}, "dog")
        )
    return Erasure(
        changes,
        runtime,
        {"public": torch.ones(2)},
        {"secret-prompt": SECRET} if hidden else {},
        {"eraser": "me", "base": base.info.components, "weights_sha256": "x"},
    )


def place(folder, form):
    return folder / ("out" if form == "diffusers" else "out.safetensors")


def with_erasure(base, erasure, component):
    with erasure.applied(base):
        return weights(base, component)


def test_diffusers_folder_has_the_erased_weights(base, tmp_path):
    from diffusers import DiffusionPipeline

    components = list(base.modules())
    erasure, before = erasure_of(base, *components), {c: weights(base, c) for c in components}
    folder = export_erasure(erasure, base, tmp_path / "deep" / "out", "diffusers")
    theirs = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    for component in components:
        expected = with_erasure(base, erasure, component)
        for name, tensor in getattr(theirs, component).named_parameters():
            assert torch.equal(tensor, expected[name]), name
        assert any(not torch.equal(expected[n], t) for n, t in before[component].items())
        assert all(torch.equal(before[component][n], t) for n, t in weights(base, component).items()), "the base is as it was"
    record = json.loads((folder / "conceptbench.json").read_text())
    assert record["base"] == base.info.components and record["eraser"] == "me"
    assert [p.name for p in folder.parent.iterdir()] == ["out"], "nothing is left beside it"


def test_state_dict_of_the_unet_loads_into_diffusers(sd1, tmp_path):
    from diffusers import UNet2DConditionModel

    erasure = erasure_of(sd1, "unet")
    path = export_erasure(erasure, sd1, tmp_path / "unet.safetensors", "state-dict")
    fresh = UNet2DConditionModel.from_config(sd1.unet.config)
    fresh.load_state_dict(load_file(path))
    expected = with_erasure(sd1, erasure, "unet")
    assert all(torch.equal(t, expected[n]) for n, t in fresh.named_parameters())


def test_state_dict_of_several_networks(sd1, tmp_path):
    erasure = erasure_of(sd1, "unet", "text_encoder")
    state = load_file(export_erasure(erasure, sd1, tmp_path / "s.safetensors", "state-dict"))
    expected = {f"{c}.{n}": t for c in ("unet", "text_encoder") for n, t in with_erasure(sd1, erasure, c).items()}
    assert set(state) == set(expected) and all(torch.equal(state[n], t) for n, t in expected.items())


@pytest.mark.parametrize("form", FORMS)
def test_what_leaves_comes_back_the_same(base, tmp_path, form):
    erasure = erasure_of(base, "unet", "text_encoder")
    back = load_checkpoint(export_erasure(erasure, base, place(tmp_path, form), form), base)
    for component in ("unet", "text_encoder"):
        expected, now = with_erasure(base, erasure, component), with_erasure(base, back, component)
        assert all(torch.equal(now[n], t) for n, t in expected.items())
    assert {c.component for c in back.changes} == {"unet", "text_encoder"}


@pytest.mark.parametrize("form", FORMS)
def test_hidden_artefacts_never_leave(sd1, tmp_path, form):
    erasure = erasure_of(sd1, "unet")
    out = export_erasure(erasure, sd1, place(tmp_path, form), form)
    files = [p for p in (out.rglob("*") if out.is_dir() else [out]) if p.is_file()]
    assert files
    for content in (p.read_bytes() for p in files):
        assert SECRET.numpy().tobytes() not in content and b"secret-prompt" not in content and erasure.weights_hash().encode() not in content
    assert "secret-prompt" in erasure.hidden, "the erasure itself keeps them"


def test_patch_keeps_all_that_is_public(sd1, tmp_path):
    erasure = erasure_of(sd1, "unet", runtime=RuntimeSpec("negative-prompt", {"text": "x"}))
    patch = Erasure.load(export_erasure(erasure, sd1, tmp_path / "p.safetensors", "patch"))
    assert patch.runtime == erasure.runtime and patch.concepts() == ["dog"] and torch.equal(patch.artefacts["public"], torch.ones(2)) and patch.hidden == {}
    assert patch.meta["eraser"] == "me" and patch.meta["exported"]["hidden_left_out"] == 1 and patch.meta["weights_sha256"] == patch.weights_hash()
    assert erasure.meta["weights_sha256"] == "x"
    open_one = erasure_of(sd1, "unet", hidden=False)
    assert Erasure.load(export_erasure(open_one, sd1, tmp_path / "q.safetensors", "patch")).weights_hash() == open_one.weights_hash()


@pytest.mark.parametrize("form", ["diffusers", "state-dict"])
def test_what_works_while_sampling_has_no_weights(sd1, tmp_path, form):
    erasure = Erasure(runtime=RuntimeSpec("negative-prompt", {"text": "x"}))
    with pytest.raises(UserInputError, match=r"works while sampling \(negative-prompt\)[\s\S]*--form patch"):
        export_erasure(erasure, sd1, place(tmp_path, form), form)
    assert list(tmp_path.iterdir()) == []
    assert export_erasure(erasure, sd1, tmp_path / "p.safetensors", "patch").is_file()


def test_an_erasure_without_changes(sd1, tmp_path):
    with pytest.raises(UserInputError, match="state dict would be empty"):
        export_erasure(Erasure(), sd1, tmp_path / "s.safetensors", "state-dict")
    back = load_checkpoint(export_erasure(Erasure(), sd1, tmp_path / "d", "diffusers"), sd1)
    assert back.changes == []


@pytest.mark.parametrize("form", FORMS)
def test_an_existing_export_is_replaced_only_by_force(sd1, tmp_path, form):
    out = export_erasure(erasure_of(sd1, "unet"), sd1, place(tmp_path, form), form)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    other = Erasure([Change("unet", "additive", {n: torch.ones_like(p) for n, p in sd1.parameters("kv").items()})])
    with pytest.raises(UserInputError, match=r"exists.*\n.*--force"):
        export_erasure(other, sd1, out, form)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    export_erasure(other, sd1, out, form, force=True)
    name = next(iter(sd1.parameters("kv")))
    assert torch.allclose(with_erasure(sd1, load_checkpoint(out, sd1), "unet")[name], weights(sd1)[name] + 1)
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


def test_force_replaces_nothing_but_an_export(sd1, tmp_path):
    precious = tmp_path / "home"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years")
    with pytest.raises(UserInputError, match="not an earlier export"):
        export_erasure(Erasure(), sd1, precious, "diffusers", force=True)
    assert (precious / "thesis.tex").read_text() == "years"


def test_an_empty_folder_may_be_filled(sd1, tmp_path):
    (tmp_path / "out").mkdir()
    assert (export_erasure(Erasure(), sd1, tmp_path / "out", "diffusers") / "model_index.json").is_file()


@pytest.mark.parametrize(
    ("name", "form", "words"),
    [
        ("x.safetensors", "state_dict", "did you mean 'state-dict'"),
        ("file", "diffusers", "is a file, but a diffusers pipeline is a folder"),
        ("folder", "patch", "is a folder, but a patch is a file"),
        ("x.pt", "state-dict", "a state-dict is a safetensors file"),
    ],
)
def test_destinations_of_the_wrong_kind(sd1, tmp_path, name, form, words):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserInputError, match=words):
        export_erasure(erasure_of(sd1, "unet"), sd1, tmp_path / name, form)


def test_an_erasure_of_another_base_is_refused_before_anything_is_written(sd1, tmp_path):
    strange = Erasure([Change("unet", "additive", {"no.such.weight": torch.ones(1)})])
    for form in FORMS:
        with pytest.raises(UserInputError, match=r"no\.such\.weight"):
            export_erasure(strange, sd1, place(tmp_path, form), form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_broken_export_leaves_nothing_or_the_old_one(sd1, tmp_path, monkeypatch, form, existing, error):
    erasure, before = erasure_of(sd1, "unet"), weights(sd1)
    out = place(tmp_path, form)
    if existing:
        export_erasure(erasure, sd1, out, form)
    old = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def full(*args, **kwargs):
        raise error

    monkeypatch.setattr(
        {
            "diffusers": "diffusers.AutoencoderKL.save_pretrained",
            "state-dict": "conceptbench.models.export.save_file",
            "patch": "conceptbench.models.erasure.save_file",
        }[form],
        full,
    )
    with pytest.raises(WriteError if isinstance(error, OSError) else KeyboardInterrupt, match="No space left" if isinstance(error, OSError) else None):
        export_erasure(erasure, sd1, out, form, force=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == old and (existing or list(tmp_path.iterdir()) == [])
    assert all(torch.equal(before[n], t) for n, t in weights(sd1).items())


def test_the_old_export_comes_back_if_the_new_one_cannot_take_its_place(sd1, tmp_path, monkeypatch):
    out = export_erasure(Erasure(), sd1, tmp_path / "out", "diffusers")
    (out / "mark").write_text("old")
    real, calls = module.os.replace, []

    def replace(a, b):
        calls.append(b)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        real(a, b)

    monkeypatch.setattr(module, "_write_folder", lambda e, b, d: _folder(d))

    def _folder(destination):
        with module._whole_folder(destination) as folder:
            (folder / "new").write_text("x")
            monkeypatch.setattr(module.os, "replace", replace)

    with pytest.raises(WriteError):
        export_erasure(Erasure(), sd1, out, "diffusers", force=True)
    assert len(calls) == 3 and (out / "mark").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_no_second_model_is_held_in_memory(sd1, tmp_path, monkeypatch):
    """Tensors that the erasure leaves alone are written from the base's own memory."""
    given = {}
    monkeypatch.setattr(module, "save_file", lambda tensors, path, metadata: given.update(tensors))
    erasure = erasure_of(sd1, "unet")
    export_erasure(erasure, sd1, tmp_path / "s.safetensors", "state-dict")
    own = {n: p.data_ptr() for n, p in sd1.unet.named_parameters()}
    changed = set(erasure.changes[0].tensors)
    assert all((given[n].data_ptr() == own[n]) == (n not in changed) for n in own)


def test_metadata_of_a_state_dict_names_its_origin(sd1, tmp_path):
    path = export_erasure(erasure_of(sd1, "unet"), sd1, tmp_path / "s.safetensors", "state-dict")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt" and json.loads(metadata["conceptbench_export"])["base_id"] == sd1.info.id
