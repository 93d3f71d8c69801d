from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from boards import HOSTILE, run_folder, sha
from PIL import Image

from conceptbench.core.errors import UserInputError
from conceptbench.leaderboard.site_pictures import PAIRS, read_run, sample_pairs


def colours_of(strip):
    """The colour in the middle of each image of a strip."""
    kind, _, data = strip["uri"].partition(";base64,")
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    side = image.shape[1] // strip["count"]
    return kind, [tuple(int(v) for v in image[side // 2, i * side + side // 2]) for i in range(strip["count"])]


def place(rows, concept, model=None):
    r = rows[0]
    return json.dumps([r.suite, r.suite_version.partition(".")[0], r.task, concept, *([model] if model else [])], separators=(",", ":"))


def test_pairs_are_the_images_of_the_records(tmp_path):
    rows, colours = run_folder(tmp_path)
    pictures = sample_pairs([read_run(tmp_path)], rows)
    erasure = next(r.erasure_sha256 for r in rows if r.eraser == "uce")
    for model, name in ((f"base {sha('base')}", "base"), (erasure, "uce")):
        for concept in ("marks", "person"):
            kind, found = colours_of(pictures.strips[place(rows, concept, model)])
            assert (kind, found) == ("data:image/png", colours[name, concept])
    assert len(pictures.strips) == 4 and pictures.left_out == 0
    assert pictures.shown[place(rows, "marks")] == {"prompts": [f"a picture of marks {i}" for i in range(4)], "hidden": True}
    assert pictures.shown[place(rows, "person")]["hidden"] is False


def test_concepts_of_unknown_kind_are_hidden(tmp_path):
    rows, _ = run_folder(tmp_path, concepts="not-here.yaml")
    assert all(s["hidden"] for s in sample_pairs([read_run(tmp_path)], rows).shown.values())


def test_other_weights_get_no_images(tmp_path):
    rows, _ = run_folder(tmp_path)
    others = [r.model_copy(update={"erasure_sha256": sha("other")}) if r.eraser != "base" else r for r in rows]
    found = sample_pairs([read_run(tmp_path)], others).strips
    assert len(found) == 2 and all("base " in name for name in found)
    elsewhere = [r.model_copy(update={"base_sha256": sha("other"), "erasure_sha256": "" if r.eraser == "base" else sha("other")}) for r in rows]
    assert not sample_pairs([read_run(tmp_path)], elsewhere).strips
    assert not sample_pairs([read_run(tmp_path)], [r.model_copy(update={"suite_version": "7.0"}) for r in rows]).strips


def test_at_most_so_many_pairs_and_bytes_erased_concepts_first(tmp_path):
    rows, _ = run_folder(tmp_path, prompts=PAIRS + 3)
    run = read_run(tmp_path)
    full = sample_pairs([run], rows)
    assert {s["count"] for s in full.strips.values()} == {PAIRS}
    largest = sum(len(s["uri"]) for name, s in full.strips.items() if '"marks","marks"' in name)
    some = sample_pairs([run], rows, largest=largest)
    assert set(some.strips) == {n for n in full.strips if '"marks","marks"' in n} and some.left_out == 2
    assert not sample_pairs([run], rows, largest=10).strips


def test_large_images_become_small_jpegs(tmp_path):
    rows, _ = run_folder(tmp_path, side=300, prompts=2)
    strip = next(iter(sample_pairs([read_run(tmp_path)], rows).strips.values()))
    assert strip["uri"].startswith("data:image/jpeg;base64,") and len(strip["uri"]) < 6000 and not strip["sharp"] and strip["height"] == 112


def test_images_that_are_gone(tmp_path):
    rows, _ = run_folder(tmp_path, gone=True)
    assert not sample_pairs([read_run(tmp_path)], rows).strips
    (tmp_path / "store" / "images").rmdir() if (tmp_path / "store" / "images").exists() else None
    (tmp_path / "store").rmdir()
    with pytest.raises(UserInputError, match="is not there"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("file", "text"), [("results.json", "{}"), ("results.json", "nothing"), ("results.json", '{"canonical": {"suite": 1}}'), ("records.csv", "a\n")]
)
def test_folders_that_are_no_runs(tmp_path, file, text):
    run_folder(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(UserInputError):
        read_run(tmp_path)


def test_prompts_are_whole(tmp_path):
    rows, _ = run_folder(tmp_path, hostile=HOSTILE["script"])
    prompts = sample_pairs([read_run(tmp_path)], rows).shown[place(rows, "marks")]["prompts"]
    assert prompts[0] == "</script><script>alert(2)</script>a picture of marks 0"
