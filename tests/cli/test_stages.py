"""The verbs that do one stage alone, and what people bring, on the mini model."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from calling import cli  # noqa: F401 - a fixture
from PIL import Image

from conceptbench.core.manifests import prompts_for

CHURCH, GUITAR = (prompts_for("mini", "heldout", [c])[:2] for c in ("church", "guitar"))
OBJECT = ("mini", "--task", "object", "--limit", "2")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("stages")


@pytest.fixture(scope="module")
def erasures(place):
    """UCE's erasures of two tasks as files; made once for this module."""
    import sys

    from conceptbench.cli import app

    old, sys.argv = sys.argv, ["conceptbench", "erase", "mini", "-e", "uce", "--task", "object", "--task", "identity", "--store", str(place / "store")]
    sys.argv += ["--output", str(place / "erasures")]
    try:
        app.main()
    except SystemExit as stop:
        assert not stop.code
    finally:
        sys.argv = old
    return {n: place / "erasures" / f"uce-mini-{n}.safetensors" for n in ("object", "identity")}


def rows_of(folder):
    with (folder / "leaderboard.csv").open() as file:
        return {(r["eraser"], r["metric"], r["role"]): r for r in csv.DictReader(file) if r["concept"] == "*"}


def test_checkpoints_and_combinations_are_rows(cli, place, erasures):
    a, b = erasures["object"], erasures["identity"]
    brought = ("--checkpoint", f"a={a}", "--checkpoint", f"b={b}", "--combine", "a+b", "--combine", "a+b-a")
    code, _, err = cli("run", *OBJECT, *brought, "--eraser", "uce", "--store", place / "store", "--output", place / "run")
    assert code == 0, err
    rows = rows_of(place / "run")
    assert {e for e, _, _ in rows} == {"base", "uce", "a", "b", "a+b", "a+b-a"}
    # the file is the same erasure as the line-up's own, and a sum without a is b alone
    same = ("value", "erasure_sha256", "n_scored")
    assert all(rows["a", "esr-1", "target"][k] == rows["uce", "esr-1", "target"][k] for k in same)
    assert rows["a+b-a", "psr-1", "retained"]["value"] == rows["b", "psr-1", "retained"]["value"]
    assert rows["a+b", "esr-1", "target"]["value"] == "1" and rows["a", "esr-1", "target"]["preset"] == "checkpoint"
    # what it cost was paid elsewhere
    assert rows["a", "cost-seconds", "model"]["value"] == "" and float(rows["uce", "cost-seconds", "model"]["value"]) > 0
    assert float(rows["a", "weight_change-tensors", "model"]["value"]) == float(rows["uce", "weight_change-tensors", "model"]["value"]) > 0
    document = json.loads((place / "run" / "results.json").read_text())
    assert str(place) not in json.dumps(document["canonical"])  # no place of a file in what others compare


def test_compare_tells_them_apart(cli, place, erasures):
    code, out, err = cli("compare", f"{place / 'run'}:a", f"{place / 'run'}:uce", "--json")
    assert code == 0, err
    lines = json.loads(out)["comparisons"]
    assert {"esr-1", "psr-1", "lpips"} <= {c["metric"] for c in lines} and all(c["delta"] == 0 and c["only_a"] == c["only_b"] == 0 for c in lines)
    code, out, _ = cli("compare", f"{place / 'run'}:a", f"{place / 'run'}:b", "--json")
    drop = next(c for c in json.loads(out)["comparisons"] if (c["metric"], c["role"]) == ("esr-1", "target"))
    assert (drop["value_a"], drop["value_b"], drop["discordant_a"]) == (1.0, 0.0, 2)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--checkpoint", "nowhere.safetensors"), "no such checkpoint"),
        (("--checkpoint", "base=x"), "cannot name a checkpoint"),
        (("--checkpoint", "a=x", "--checkpoint", "a=y"), "two checkpoints are called 'a'"),
        (("--combine", "a+b"), "unknown checkpoint in the combination"),
        (("--shard", "9/3"), "not a shard"),
        (("--precision", "fp64"), "unknown precision"),
        (("--task", "objekt"), "did you mean 'object'"),
    ],
)
def test_bad_input(cli, arguments, expected):
    code, _, err = cli("run", "mini", *arguments)
    assert code == 2 and expected in err


def test_generate_draws_what_run_draws_and_resumes(cli, place, erasures, tmp_path):
    prompts = tmp_path / "few.csv"
    prompts.write_text("prompt_id,text,concept,seed\n" + "".join(f"{r.prompt_id},{r.text},{r.concept},{2 * i}\n" for i, r in enumerate(CHURCH)))
    arguments = ("generate", "--prompts", prompts, "--checkpoint", erasures["object"], "--store", place / "store", "--output", tmp_path / "images", "-n", 2)
    code, out, err = cli(*arguments)
    assert code == 0 and out.strip() == str(tmp_path / "images" / "manifest.csv"), err
    with (tmp_path / "images" / "manifest.csv").open() as file:
        manifest = list(csv.DictReader(file))
    assert [(m["prompt_id"], m["number"], m["seed"]) for m in manifest] == [(r.prompt_id, str(k), str(2 * i + k)) for i, r in enumerate(CHURCH) for k in (0, 1)]
    before = {m["file"]: (tmp_path / "images" / m["file"]).read_bytes() for m in manifest}
    shutil.rmtree(tmp_path / "images")
    assert cli(*arguments)[0] == 0
    assert {m["file"]: (tmp_path / "images" / m["file"]).read_bytes() for m in manifest} == before
    plain = ("generate", CHURCH[0].text, "--store", place / "store", "--output", tmp_path / "plain")
    assert cli(*plain)[0] == 0
    apart = np.asarray(Image.open(tmp_path / "plain" / "p0_0.png"), int) - np.asarray(Image.open(tmp_path / "images" / manifest[0]["file"]), int)
    assert np.abs(apart).mean() > 5  # the erasure was on


def test_generate_wants_one_source_of_prompts(cli):
    assert cli("generate")[0] == 2 and cli("generate", "a", "--prompts", "mini")[0] == 2
    code, _, err = cli("generate", "a church", "--scheduler", "dimm")
    assert code == 2 and "did you mean 'ddim'" in err


@pytest.fixture
def pictures(place, tmp_path):
    """Files of a red picture for the first church and guitar prompts, named by caption."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for row in (CHURCH[0], CHURCH[1], GUITAR[0]):
        Image.new("RGB", (40, 32), (200, 30, 30)).save(folder / f"{row.text.replace(' ', '_')}_0.png")
    return folder


def test_score_a_folder_by_captions(cli, place, pictures, tmp_path):
    code, _, err = cli("score", *OBJECT, "--images", pictures, "--name", "red", "--store", place / "store", "--output", tmp_path / "out")
    assert code == 0, err
    rows = rows_of(tmp_path / "out")
    target, kept = rows["red", "esr-1", "target"], rows["red", "psr-1", "retained"]
    assert (target["value"], target["n_scored"], target["status"], target["preset"]) == ("1", "2", "limited", "images")
    assert (kept["value"], kept["n_planned"], kept["n_scored"], kept["n_failed"], kept["status"]) == ("0", "12", "1", "0", "partial")
    assert target["delta"] == "" and ("red", "lpips", "target") not in rows and rows["red", "nothing", "target"]["value"] != ""


def test_score_a_folder_by_manifest(cli, place, pictures, tmp_path):
    files = sorted(p.name for p in pictures.iterdir())
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"file,prompt_id,number\n{files[0]},{CHURCH[0].prompt_id},0\n")
    arguments = ("score", *OBJECT, "--images", pictures, "--manifest", manifest, "--store", place / "store", "--output", tmp_path / "out")
    assert cli(*arguments)[0] == 0 and rows_of(tmp_path / "out")["elsewhere", "esr-1", "target"]["n_scored"] == "1"
    manifest.write_text(f"file,prompt_id\n{files[0]},church-h99\nnowhere.png,church-h01\n")
    code, _, err = cli(*arguments)
    assert code == 2 and "1 files of" in err and "m.csv:3: nowhere.png" in err
    manifest.write_text(f"file,prompt_id\n{files[0]},church-h99\n")
    code, _, err = cli(*arguments)
    assert code == 2 and "fit no prompt" in err and "nearest" in err
    manifest.write_text(f"file,prompt_id\n{files[0]},church-h00\n{files[1]},church-h00\n")
    code, _, err = cli(*arguments)
    assert code == 2 and "are the same image of" in err


def test_a_truncated_picture_names_its_file(cli, place, pictures, tmp_path):
    path = sorted(pictures.iterdir())[0]
    path.write_bytes(path.read_bytes()[:40])
    code, _, err = cli("score", *OBJECT, "--images", pictures, "--store", place / "store", "--output", tmp_path / "out")
    assert code == 2 and path.name in err
    assert cli("score", *OBJECT, "--images", tmp_path / "none")[0] == 2
    code, _, err = cli("score", "mini", "--images", pictures)
    assert code == 2 and "identity, object, style" in err


def test_score_without_images_collects_what_is_there(cli, place, tmp_path):
    code, _, err = cli("score", "mini", "--task", "style", "--limit", "1", "--eraser", "uce", "--store", tmp_path / "empty", "--output", tmp_path / "out")
    assert code == 0, err
    rows = rows_of(tmp_path / "out")
    assert rows["uce", "esr-1", "target"]["status"] == "partial" and rows["base", "esr-1", "target"]["n_scored"] == "0"
    assert not (tmp_path / "empty" / "images").exists()
