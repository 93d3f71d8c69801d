"""What foreign records say as judges would have said it: classes, detections, numbers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from conceptbench.core.errors import UserInputError
from conceptbench.core.label_sets import spellings
from conceptbench.engine.foreign_classes import classes_among, imagenet, labels_of_concepts
from conceptbench.engine.foreign_records import images_of, read_mapping
from conceptbench.engine.foreign_tables import read_table
from conceptbench.engine.record_answers import all_detections, all_numbers, all_top, parts_of, ranked, separator_of
from conceptbench.judges.nudenet import LABELS

KNOWN = [f"nudity/{name}" for name in LABELS]


def table(tmp_path, text, name="r.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return read_table(path)


def images(tmp_path, text, *entries, name="r.csv", **options):
    return images_of(table(tmp_path, text, name), read_mapping(entries), **options)


def refusal(call, *arguments, **options):
    with pytest.raises(UserInputError) as error:
        call(*arguments, **options)
    return str(error.value)


# -- classes ---------------------------------------------------------------------------------------------------------
def test_imagenet():
    classes = imagenet()
    assert len(classes.labels) == 1000
    for name, index in {"tench": 0, "english_springer": 217, "Cassette Player": 482, "CHURCH": 497, "french horn": 566, "parachute": 701}.items():
        assert classes.find(name) == (index,)
    assert classes.find("566") == (566,) and classes.find("566:French horn") == (566,) and classes.find("1000") == ()
    assert classes.find("crane") == (134, 517) and classes.find("maillot") == (638, 639) and classes.find("Cardigan") == (264, 474)
    assert classes.row(["crane", "church", "crane"]) == (134, 497, 517)
    assert classes.row(["church", "church"]) is None and classes.row(["nothing of the kind"]) is None


def test_labels_of_concepts():
    classes, strangers = classes_among(["Church", "radio", ""])
    assert classes.head == "imagenet" and not strangers
    assert labels_of_concepts(["Church", "Pump"], classes, {"pump": "gas pump"}, by_index=False) == {
        "Church": "imagenet/497:church",
        "Pump": "imagenet/571:gas pump",
    }
    found = refusal(labels_of_concepts, ["churhc", "Crane"], classes, {"tench": "0"}, by_index=False)
    assert "did you mean 'church'" in found and "ImageNet has two classes called 'Crane', 134 and 517" in found and "'tench', which is no concept" in found
    # an index says which crane, but names in the records do not tell the two apart
    assert "two classes" in refusal(labels_of_concepts, ["crane"], classes, {"crane": "517"}, by_index=False)
    assert labels_of_concepts(["crane"], classes, {"crane": "517"}, by_index=True) == {"crane": "imagenet/517:crane"}
    assert "two classes" in refusal(labels_of_concepts, ["crane"], classes, {}, by_index=True)


def test_classes_of_another_classifier():
    classes, strangers = classes_among(["Brad Pitt", "church", "Brad_Pitt"], ["Nobody"])
    assert strangers == ["Brad Pitt", "Brad_Pitt"] and classes.head == "named" and classes.labels[:3] == ("brad pitt", "church", "nobody")
    assert len(classes.labels) == 4  # and one for all that are not named
    assert "1 class names are not ImageNet's: 'churhc' (nearest: 'church')" in refusal(classes_among, ["churhc", "radio"], strict=True)


def test_ranked():
    found = ranked([7, 2, 5], 10)
    assert list(np.argsort(-found, kind="stable")[:3]) == [7, 2, 5] and found.sum() == pytest.approx(1) and (found > 0).sum() == 3


def test_top(tmp_path):
    text = "t1,t2,s1,s2\nchurch,radio,.6,.3\n,radio,,.3\nchurch,radio,nan,.1\n"
    file = images(tmp_path, text, "top=t{}", "top_scores=s{}", concept="church")
    assert all_top(file, imagenet()) == [(497, 754), None, None]
    text = "t1,t2,s1,s2\nchurch,radio,.3,.6\nchurch,church,.5,.1\n"
    found = refusal(all_top, images(tmp_path, text, "top=t{}", "top_scores=s{}"), imagenet())
    assert "r.csv:2: the scores .3, .6 do not fall" in found and "r.csv:3: the answers church, church" in found
    found = refusal(images, tmp_path, "t1,t2,s1\nchurch,radio,.3\n", "top=t{}", "top_scores=s{}")
    assert "2 columns of answers and 1 of their scores" in found


# -- detections ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("separator", [",", ";", "|", "-", " "])
def test_separators_are_found(separator):
    cells = ["FEET_EXPOSED", "", separator.join(["BELLY_EXPOSED", "FACE_FEMALE", "FEET_EXPOSED"]), "FEET_EXPOSED"]
    assert separator_of(cells, LABELS) == separator
    assert separator_of([f"{cells[2]}{separator}"], LABELS) == separator  # one may stand at the end


def test_parts():
    assert parts_of("0.5-1e-05-2.5E-01", "-") == ["0.5", "1e-05", "2.5E-01"]
    assert parts_of("", "-") == [] and parts_of("['A', 'B']", "-") == ["A", "B"] and parts_of("[0.5]", ",") == [0.5]
    assert "Diffusion-MU-Attack" in refusal(parts_of, '{"FEET_EXPOSED": 0.5}', ",")


FORMS = {
    "eap.csv": "l,s\nFEET_EXPOSED-FACE_FEMALE,0.5-0.25\n,\n0.0,\nBELLY_EXPOSED,\n",
    "old.csv": "l,s\nEXPOSED_FEET;FACE_F,.5;.25\n,\nnan,nan\nEXPOSED_BELLY,nan\n",
    "lists.csv": "l,s\n\"['FEET_EXPOSED', 'FACE_FEMALE']\",\"[0.5, 0.25]\"\n[],[]\n0.0,[]\nBELLY_EXPOSED,\n",
    "lists.jsonl": '{"l": ["FEET_EXPOSED", "FACE_FEMALE"], "s": [0.5, 0.25]}\n{"l": [], "s": []}\n{"l": 0.0, "s": null}\n{"l": "BELLY_EXPOSED", "s": null}\n',
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_detections(tmp_path, name):
    file = images(tmp_path, FORMS[name], "labels=l", "scores=s", name=name)
    first, empty, unseen, scoreless = all_detections(file, KNOWN, separator_of((r.cells["labels"] for r in file.records), spellings(KNOWN)))
    assert first[:, :2].tolist() == [[0.5, LABELS.index("FEET_EXPOSED")], [0.25, LABELS.index("FACE_FEMALE")]]
    assert empty.shape == (0, 6)  # nothing was found in it, and it counts
    assert unseen is None and scoreless is None


@pytest.mark.parametrize(("key", "label"), [("class", "FEET_EXPOSED"), ("label", "EXPOSED_FEET")])
def test_nudenets_own_output(tmp_path, key, label):
    lines = [{"d": [{key: label, "score": 0.7, "box": [1, 2, 3, 4]}]}, {"d": []}]
    file = images(tmp_path, "\n".join(map(json.dumps, lines)), "detections=d", name="r.jsonl")
    first, second = all_detections(file, KNOWN, ",")
    assert first[:, :2].tolist() == [[0.7, LABELS.index("FEET_EXPOSED")]] and len(second) == 0
    kept = images(tmp_path, json.dumps({"d": {"FEET_EXPOSED": 0.5}}), "detections=d", name="mu.jsonl")
    assert "no rate or count can be made again" in refusal(all_detections, kept, KNOWN, ",")


def test_faulty_detections(tmp_path):
    text = "l,s\nFEET_EXPOSD,.5\nFEET_EXPOSED,.5-.4\nFEET_EXPOSED,55\n,.5\nFEET_EXPOSED-,.5\n"
    found = refusal(all_detections, images(tmp_path, text, "labels=l", "scores=s"), KNOWN, "-")
    assert "r.csv:2: unknown label 'FEET_EXPOSD'; did you mean" in found and "r.csv:3: 1 labels and 2 scores" in found
    assert "r.csv:4" in found and "r.csv:5: 0 labels and 1 scores" in found and "r.csv:6" not in found


# -- numbers ---------------------------------------------------------------------------------------------------------
def test_numbers(tmp_path):
    text = "v,r,l\n1.5,true,0.1\n,0,\nnan,1,inf\n"
    found = all_numbers(images(tmp_path, text, "value:v=v", "rate:r=r", "lpips=l"), "x100")
    assert found == {"value:v": [1.5, None, None], "rate:r": [1.0, 0.0, 1.0], "lpips": [0.1, None, None]}


@pytest.mark.parametrize(
    ("role", "cell", "expected"),
    [
        ("lpips", "-0.1", "is negative"),
        ("clip", "250", "the scale x100"),
        ("rate:x", "0.5", "neither 0 nor 1"),
        ("value:x", "high", "is no number"),
        ("faces", "1.5", "no number of faces"),
    ],
)
def test_impossible_numbers(tmp_path, role, cell, expected):
    found = refusal(all_numbers, images(tmp_path, f"i,v\n0,0\n1,{cell}\n", f"{role}=v", "image=i"), "x100")
    assert expected in found and "r.csv:3" in found


def test_scales(tmp_path):
    file = images(tmp_path, "i,v\n0,0.31\n1,0.8\n", "clip=v")
    assert all_numbers(file, "cosine")["clip"] == [0.31, 0.8]
    high = images(tmp_path, "i,v\n0,30.8\n", "clip=v")
    assert "outside of -1 to 1" in refusal(all_numbers, high, "cosine") and all(math.isfinite(v) for v in all_numbers(high, "x100")["clip"])
