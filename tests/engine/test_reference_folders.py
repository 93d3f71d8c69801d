from __future__ import annotations

import shlex

import numpy as np
import pytest
from foreign import Means, data, fill  # noqa: F401

from conceptbench.core.errors import MissingDataError, UserInputError
from conceptbench.core.registry import REFERENCES
from conceptbench.engine.pictures import folder_digest
from conceptbench.engine.reference_folders import coco_30k, folder_reference
from conceptbench.engine.references import References
from conceptbench.engine.store import Store


def test_missing(data, tmp_path):
    references = References({}, Store(tmp_path / "store"))
    for look in (coco_30k.folder, lambda: references.check("coco-30k", 4), lambda: references.folder("coco-30k"), lambda: references.digest("coco-30k", 4, ())):
        with pytest.raises(MissingDataError) as caught:
            look()
        assert f"there is no folder {data / 'coco-val2014'}" in caught.value.message and "40 504 images of COCO val2014" in caught.value.hint
    curl, unzip, move = (shlex.split(part) for part in coco_30k.command(data / "coco-val2014").split(" && "))
    assert curl[-1] == "http://images.cocodataset.org/zips/val2014.zip" and curl[-2] == unzip[2] and unzip[-1] == str(data)
    assert move == ["mv", str(data / "val2014"), str(data / "coco-val2014")]
    (data / "coco-val2014").mkdir(parents=True)
    with pytest.raises(MissingDataError, match="no images in the folder"):
        coco_30k.folder()


def test_too_few(data, tmp_path):
    fill(data / "coco-val2014")
    with pytest.raises(UserInputError, match="has 4 images, and 5 are asked for") as caught:
        References({}, Store(tmp_path / "store")).check("coco-30k", 5)
    assert "unzip" in caught.value.hint
    with pytest.raises(UserInputError, match="say how many"):
        References({}, Store(tmp_path / "store")).check("coco-30k", None)


def test_the_first_images_as_they_are(data, tmp_path):
    means, judge = fill(data / "coco-val2014"), Means()
    references = References({"means": judge}, Store(tmp_path / "store"))
    said, digest = references.said("means", "coco-30k", 3, ())
    np.testing.assert_allclose(said["features"], means[:3])
    assert judge.shapes == [(2, 8, 12, 3), (1, 10, 6, 3)] and digest == folder_digest(data / "coco-val2014", 3)
    again = References({"means": judge}, Store(tmp_path / "store"))
    np.testing.assert_array_equal(again.said("means", "coco-30k", 3, ())[0]["features"], said["features"])
    assert len(judge.shapes) == 2  # from the store
    same, _ = again.said("means", str(data / "coco-val2014"), 3, ())  # the user's folder is no other set
    np.testing.assert_array_equal(same["features"], said["features"])
    assert len(judge.shapes) == 2


def test_to_look_at(data):
    fill(data / "coco-val2014")
    assert coco_30k((), 2, 0).shape == (2, 256, 256, 3)
    assert folder_reference("coco-30k") is coco_30k and folder_reference("mini-drawings") is None and folder_reference("nothing") is None
    assert "coco-30k" in REFERENCES.names()
