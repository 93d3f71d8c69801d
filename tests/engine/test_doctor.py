from __future__ import annotations

import json
import os
import shutil
import socket

import pytest
import tiny
from world import write_suite

from conceptbench.core.errors import MissingWeightsError, UserInputError
from conceptbench.core.manifests import names_in
from conceptbench.core.registry import JUDGES
from conceptbench.engine.doctor import Doctor, check_base, check_eraser, judge_card, machine, missing_parts, offline


class NeedsNetwork:
    """A judge that would download its weights."""

    def __init__(self):
        try:
            socket.create_connection(("example.org", 443))
        except OSError as error:
            raise MissingWeightsError("the judge has no weights", "fetch --them") from error


JUDGES.add("needs-network", NeedsNetwork)


def test_shipped_mini_suites_can_run():
    doctor = Doctor()
    for name in [n for n in names_in("suites") if n.startswith("mini")]:
        assert [c for c in doctor.examine(name) if not c.ready] == []


def test_what_is_missing_with_the_command_that_gets_it(tmp_path):
    path = write_suite(
        tmp_path,
        base="owner/model@v2",
        metrics=[{"metric": "esr", "judge": "colour"}, {"metric": "psr", "judge": "needs-network"}],
        erasers=["uce", "esd-y"],
    )
    (tmp_path / "prompts.csv").write_text((tmp_path / "prompts.csv").read_text().replace(",gh,", ",ab,"))
    found = {(c.kind, c.name): c for c in Doctor().examine(str(path))}
    assert [k for k, c in found.items() if c.ready] == [("judge", "colour"), ("eraser", "uce")]
    assert found["base", "owner/model@v2"].remedy == "hf download owner/model --revision v2"
    assert found["judge", "needs-network"].remedy == "fetch --them"
    assert "esd" in found["eraser", "esd-y"].detail and "no heldout prompts for: gh" in found["data", str(tmp_path / "concepts.yaml")].detail


def test_a_suite_that_cannot_be_read():
    (check,) = Doctor().examine("minni")
    assert not check.ready and "did you mean 'mini'" in check.detail


def test_each_thing_is_looked_up_once(monkeypatch):
    asked = []
    monkeypatch.setattr("conceptbench.engine.doctor.judge_card", lambda n: asked.append(n))
    monkeypatch.setattr("conceptbench.engine.doctor.check_base", lambda n: asked.append(n))
    doctor = Doctor()
    for _ in range(2):
        doctor.examine("mini")
        doctor.examine("mini-object")
    assert sorted(asked) == ["mini", "mini-classifier", "mini-clip", "mini-lpips"]


def test_offline_and_back_again(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    before = socket.create_connection, socket.getaddrinfo
    with pytest.raises(MissingWeightsError):
        judge_card("needs-network")
    with pytest.raises(KeyError), offline():
        assert constants.HF_HUB_OFFLINE and os.environ["HF_HUB_OFFLINE"] == "1"
        for call in (socket.create_connection, socket.getaddrinfo):
            with pytest.raises(OSError, match="no network"):
                call("example.org", 443)
        raise KeyError
    assert (socket.create_connection, socket.getaddrinfo) == before and not constants.HF_HUB_OFFLINE and os.environ["HF_HUB_OFFLINE"] == "0"


def test_parts_of_a_folder(tmp_path):
    folder = tiny.save("sd1", tmp_path / "base")
    assert missing_parts(folder) == []
    check_base(str(folder))
    weights = next((folder / "unet").glob("*.safetensors"))
    weights.rename(folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    assert missing_parts(folder) == ["unet"]  # another precision's file is not what is loaded
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.safetensors"}}))
    (folder / "unet" / "m-00001-of-00002.safetensors").touch()
    assert missing_parts(folder) == ["unet"]
    (folder / "unet" / "m-00002-of-00002.safetensors").touch()
    assert missing_parts(folder) == []
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(MissingWeightsError, match="lacks tokenizer"):
        check_base(str(folder))
    (folder / "model_index.json").write_text("{")
    assert missing_parts(folder) == ["model_index.json"]


def test_unknown_base_and_erasers(tmp_path):
    with pytest.raises(UserInputError, match="did you mean 'mini'"):
        check_base("minni")
    with pytest.raises(UserInputError, match="no such plugin file"):
        check_eraser(str(tmp_path / "mine.py:Mine"), "mini")
    (tmp_path / "mine.py").write_text("raise SystemExit(1)")  # it would end the process if it were imported
    assert "not run" in check_eraser(str(tmp_path / "mine.py:Mine"), "mini") and check_eraser("uce", "mini") == ""


def test_machine_writes_nothing(tmp_path):
    store = tmp_path / "a" / "store"
    found = machine(store)
    assert list(tmp_path.iterdir()) == [] and found.store_writable and found.store_free_bytes > 0 and found.cores >= 1
    assert json.loads(json.dumps(found.as_dict()))["packages"]["torch"] and found.hub_offline == (os.environ.get("HF_HUB_OFFLINE") == "1")
    (tmp_path / "file").write_text("")
    assert not machine(tmp_path / "file" / "store").store_writable
