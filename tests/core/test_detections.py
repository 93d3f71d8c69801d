from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conceptbench.core.detections import detections_from, detections_of, split_cell
from conceptbench.core.errors import UserInputError
from conceptbench.core.label_sets import label_index, label_indices, label_sets, load_label_set, name_of_labels, plain_label, spellings

EXPOSED = ["FEMALE_BREAST", "FEMALE_GENITALIA", "MALE_BREAST", "MALE_GENITALIA", "BUTTOCKS", "ANUS", "FEET", "BELLY", "ARMPITS"]
COVERED = ["FEMALE_BREAST", "FEMALE_GENITALIA", "BUTTOCKS", "FEET", "BELLY"]
KNOWN = [f"nudity/{p}_EXPOSED" for p in EXPOSED] + [f"nudity/{p}_COVERED" for p in COVERED] + ["nudity/FACE_FEMALE", "nudity/FACE_MALE", "mark/ring"]
SECOND = {"FACE_F": "FACE_FEMALE", "FACE_M": "FACE_MALE"}


def second(label):
    """NudeNet 2's name of a label, by its rule."""
    part, _, state = label.rpartition("_")
    sex = {"FEMALE": "_F", "MALE": "_M"}.get(part.partition("_")[0], "")
    return f"{state}_{part.partition('_')[2] if sex else part}{sex}"


# -- labels --------------------------------------------------------------------------------------------------------------
def test_names_of_nudenet_2_are_mapped():
    aliases = label_sets().aliases["nudity"]
    expected = {second(f"{p}_EXPOSED"): f"{p}_EXPOSED" for p in EXPOSED} | {second(f"{p}_COVERED"): f"{p}_COVERED" for p in COVERED} | SECOND
    assert aliases == expected and len(aliases) == len(set(aliases.values())) == 16
    assert aliases["EXPOSED_BREAST_F"] == "FEMALE_BREAST_EXPOSED"


def test_sets_are_what_the_papers_count():
    nine = {f"nudity/{p}_EXPOSED" for p in EXPOSED}
    sets = {name: set(labels) for name, labels in label_sets().sets.items()}
    assert sets["nine"] == nine and sets["kpop8"] == nine - {"nudity/ANUS_EXPOSED"}
    assert sets["core"] == {f"nudity/{p}_EXPOSED" for p in ("FEMALE_BREAST", "FEMALE_GENITALIA", "MALE_GENITALIA", "BUTTOCKS", "ANUS")}
    assert sets["marks-core"] < sets["marks"] == {f"mark/{m}" for m in ("ring", "cross", "bolt", "heart")}
    assert all(len(labels) == len(set(labels)) for labels in label_sets().sets.values())
    with pytest.raises(UserInputError, match="did you mean 'kpop8'"):
        load_label_set("kpop9")


def test_every_spelling_leads_to_the_same_label():
    old = {label: other for other, label in label_sets().aliases["nudity"].items()}
    for i, full in enumerate(KNOWN):
        own = full.partition("/")[2]
        names = [full, own, *([old[own], f"nudity/{old[own]}"] if own in old else [])]
        assert [label_index(n, KNOWN) for n in names] == [i] * len(names)
    bare = [k.partition("/")[2] for k in KNOWN]
    assert label_index("EXPOSED_FEET", bare) == bare.index("FEET_EXPOSED")  # a judge's labels without heads


def test_a_label_of_two_heads_needs_its_head():
    known = ["a/x", "b/x", "b/y"]
    assert dict(spellings(known)) == {"a/x": 0, "b/x": 1, "b/y": 2, "y": 2}
    with pytest.raises(UserInputError, match="unknown label 'x'"):
        label_index("x", known)


@pytest.mark.parametrize(("wrong", "near"), [("FEET_EXPOSD", "FEET_EXPOSED"), ("EXPOSED_BREASTS_F", "EXPOSED_BREAST_F"), ("mark/rng", "mark/ring")])
def test_an_unknown_label_gives_the_nearest(wrong, near):
    with pytest.raises(UserInputError, match=f"unknown label '{wrong}'; did you mean '{near}'") as caught:
        label_index(wrong, KNOWN)
    assert "mark/ring" in caught.value.hint


def test_indices_are_sorted_and_each_once():
    assert label_indices(["mark/ring", "FEET_EXPOSED", "EXPOSED_FEET"], KNOWN) == (EXPOSED.index("FEET"), len(KNOWN) - 1)


def test_names_of_lists_depend_on_neither_order_nor_spelling():
    third, old = [f"nudity/{p}_EXPOSED" for p in EXPOSED], [second(f"{p}_EXPOSED") for p in reversed(EXPOSED)]
    assert name_of_labels(third) == name_of_labels(old) == "nine"
    assert name_of_labels(["EXPOSED_FEET"]) == name_of_labels(["nudity/FEET_EXPOSED"] * 2) == "feet_exposed"
    four = ["a/1", "a/2", "a/3", "a/4"]
    names = {name_of_labels(p) for p in itertools.permutations(four)}
    assert len(names) == 1 and names != {name_of_labels([*four[:3], "a/5"])} and names.pop().startswith("4labels.")
    assert (plain_label("nudity/EXPOSED_FEET"), plain_label("other/EXPOSED_FEET"), plain_label("ring")) == ("FEET_EXPOSED", "EXPOSED_FEET", "ring")


# -- cells and lists -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "separator", "parts"),
    [
        ("A, B", ",", ["A", "B"]),
        ("", ",", []),
        ("  ", ",", []),
        ("A;B;", ";", ["A", "B"]),
        ("A", ",", ["A"]),
        ("a | b", "|", ["a", "b"]),
        ("0.5::0.3", "::", ["0.5", "0.3"]),
    ],
)
def test_cells(text, separator, parts):
    assert split_cell(text, separator) == parts


@pytest.mark.parametrize(("text", "separator"), [("A,,B", ","), (",A", ","), (",", ","), ("A", "")])
def test_cells_with_holes_are_errors(text, separator):
    with pytest.raises(UserInputError, match="empty"):
        split_cell(text, separator)


def test_two_lists_become_rows_by_falling_score():
    out = detections_of(["FEET_EXPOSED", "mark/ring", "EXPOSED_BELLY"], ["0.25", 0.75, "0.75"], KNOWN)
    assert out.tolist() == [[0.75, KNOWN.index("mark/ring"), 0, 0, 0, 0], [0.75, EXPOSED.index("BELLY"), 0, 0, 0, 0], [0.25, EXPOSED.index("FEET"), 0, 0, 0, 0]]
    assert detections_of([], [], KNOWN).shape == detections_from([], KNOWN).shape == (0, 6)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        (["FACE_F"], [], "1 labels and 0 scores"),
        (["FACE_F"], ["high"], "score 'high' of label 'FACE_F'"),
        (["FACE_F"], [61.5], "score 61.5"),
        (["FACE_F"], [float("nan")], "score nan"),
        (["FACE_F"], [None], "score None"),
        (["FACE_F", "FACE"], [1, 1], "unknown label 'FACE'"),
    ],
)
def test_wrong_lists_are_errors(labels, scores, message):
    with pytest.raises(UserInputError, match=message):
        detections_of(labels, scores, KNOWN)


@given(st.lists(st.tuples(st.sampled_from(KNOWN), st.floats(0, 1)), max_size=8))
def test_a_table_gives_what_the_list_of_mappings_gives(found):
    of_cells = detections_of(split_cell(",".join(n for n, _ in found), ","), split_cell(",".join(repr(s) for _, s in found), ","), KNOWN)
    of_items = detections_from([{"class": n, "score": s, "box": [0, 0, 1, 1]} for n, s in found], KNOWN)
    assert np.array_equal(of_cells, of_items) and sorted(of_cells[:, 0]) == sorted(s for _, s in found)


def test_the_key_says_which_boxes_these_are():
    third = {"class": "FACE_FEMALE", "score": 0.5, "box": [10, 20, 30, 40]}  # x, y, width, height
    old = {"label": "FACE_F", "score": 0.5, "box": [10, 20, 40, 60]}  # x0, y0, x1, y1
    rows = detections_from([third, old], KNOWN, (100, 200))
    assert rows[0].tolist() == rows[1].tolist() == [0.5, KNOWN.index("nudity/FACE_FEMALE"), 0.1, 0.1, 0.4, 0.3]
    assert not detections_from([third], KNOWN)[0, 2:].any()


@pytest.mark.parametrize(
    "item", [{"score": 1}, {"class": "FACE_F", "label": "FACE_F", "score": 1}, {"class": "FACE_F"}, {"class": "FACE_F", "score": 1, "bbox": []}]
)
def test_items_with_other_keys_are_errors(item):
    with pytest.raises(UserInputError, match="exactly one key"):
        detections_from([item], KNOWN, (10, 10))


def test_boxes_must_be_as_many_as_labels():
    with pytest.raises(UserInputError, match="1 labels and 2 boxes"):
        detections_of(["FACE_F"], [1], KNOWN, [[0, 0, 1, 1]] * 2)
