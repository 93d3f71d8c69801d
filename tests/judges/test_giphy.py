"""GIPHY's detector with random weights of the real architecture: the real weights are not public any more."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from giphy_weights import PERSONS, write_folder
from giphy_weights import pictures as made_pictures
from PIL import Image

from conceptbench.core.errors import MissingWeightsError, UserInputError
from conceptbench.core.files import sha256_file
from conceptbench.judges import giphy
from conceptbench.judges.giphy import RECOGNISER, SIZE, VARIABLE, Giphy, face_window, load_recogniser, read_labels, resized


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("giphy"))


@pytest.fixture(scope="module")
def judge(folder):
    return Giphy(folder)


@pytest.fixture(scope="module")
def pictures():
    return made_pictures()


@pytest.fixture(scope="module")
def said(judge, pictures):
    return judge(pictures)


def test_resize_is_bilinear_with_antialiasing_and_without_aspect():
    generator = np.random.default_rng(7)
    for height, width in ((40, 70), (300, 500), (500, 100), (224, 224)):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        smooth = F.interpolate(torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), (SIZE, SIZE), mode="bilinear", antialias=True)
        assert np.abs(resized(pixels) - smooth[0].permute(1, 2, 0).numpy()).max() <= 1.01  # PIL rounds after each axis


def test_margins_are_cut_to_pixels_before_they_are_halved():
    # 0.2 * 48 = 9.6 -> 9 -> 4.5; 0.2 * 34.5 = 6.9 -> 6 -> 3
    assert face_window(np.array([20.6, 30.2, 68.6, 64.7]), 100, 100) == (16, 27, 73, 67)
    assert face_window(np.array([2.0, 1.0, 90.0, 99.5]), 100, 95) == (0, 0, 95, 100)


def test_the_judge_equals_the_original_steps_face_by_face(folder, judge, pictures, said):
    out = said
    assert out["faces"].shape == (3, 8, 5) and out["identities"].shape == (3, 8, PERSONS)
    state = torch.load(folder / RECOGNISER, weights_only=True)["model_state"]
    trunk = torchvision.models.resnet50(num_classes=256)
    names = list(dict(trunk.named_children()))
    own = {k.removeprefix("model.stem."): v for k, v in state.items() if k.startswith("model.stem.")}
    loaded = {f"{names[int(k.split('.')[0])]}.{k.partition('.')[2]}": v for k, v in own.items()}
    trunk.load_state_dict({**loaded, "fc.weight": state["model.fc1.weight"], "fc.bias": state["model.fc1.bias"]}, strict=True)
    trunk.eval()
    to_tensor = torchvision.transforms.ToTensor()
    total = 0
    for image, faces, identities in zip(pictures, out["faces"], out["identities"], strict=True):
        boxes = judge.finder(image)
        wanted = [b for b in boxes if min(b[2], 160) > max(b[0], 0) and min(b[3], 128) > max(b[1], 0)][:8]
        assert (faces[:, 0] > 0).sum() == len(wanted)
        for box, face, identity in zip(wanted, faces, identities, strict=False):
            left, top, right, bottom = face_window(box, 128, 160)
            cut = Image.fromarray(image[top:bottom, left:right]).resize((224, 224), Image.Resampling.BILINEAR)
            with torch.inference_mode():
                logits = trunk(to_tensor(cut)[None]) @ state["model.fc2.weight"].T + state["model.fc2.bias"]
            np.testing.assert_allclose(identity, logits.softmax(1)[0].numpy(), atol=1e-4)
            assert face[0] == pytest.approx(box[4]) and face[1:].tolist() == pytest.approx((box[:4] / (160, 128, 160, 128)).clip(0, 1).tolist())
            total += 1
    assert total >= 3 and out["identities"].max() > 0.01
    assert np.array_equal(out["identities"].sum(-1) > 0.99, out["faces"][..., 0] > 0)
    assert bool((np.diff(out["faces"][..., 0]) <= 0).all())


def test_an_image_is_the_same_bytes_in_any_company(judge, pictures, said):
    alone = judge(pictures[2:])
    assert (alone["faces"][0, :, 0] > 0).sum() == 3 and all(np.array_equal(alone[k][0], said[k][2]) for k in said)


def test_of_too_many_faces_the_surest_are_kept(judge, pictures, said, monkeypatch):
    monkeypatch.setattr(giphy, "MOST_FACES", 2)
    rows = []
    monkeypatch.setattr(judge, "recogniser", lambda x: rows.append(len(x)) or torch.full((len(x), PERSONS), 1 / PERSONS))
    few = judge(pictures[2:])
    assert np.array_equal(few["faces"][0], said["faces"][2, :2]) and few["identities"].shape == (1, 2, PERSONS)
    assert np.allclose(few["identities"].sum(-1), 1, atol=1e-3)
    assert rows == [giphy.ROWS]  # always as many, so that a face's bytes do not depend on how many there are


def test_images_without_a_face_are_zeros(judge, said):
    assert said["faces"][1].max() == 0 and said["identities"][1].max() == 0
    for side in (16, 40):
        black = judge(np.zeros((2, side, side, 3), np.uint8))
        assert black["faces"].shape == (2, 8, 5) and black["faces"].max() == 0 and black["identities"].max() == 0


def test_the_card_says_that_it_is_not_verified(folder, judge):
    card = judge.card
    assert (card.id, card.role, len(card.labels["identity"])) == ("giphy", "faces", PERSONS)
    assert card.source.startswith("unverified: weights are not public any more") and len(card.sha256) == 64
    assert card.labels["identity"][:2] == ("Person 0000", "Person 0001") and "no clusters" in card.preprocessing
    assert set(giphy.LAYOUT) == {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_classes_are_in_the_order_of_sorted_names(tmp_path):
    (tmp_path / "labels.csv").write_text("Labels,Index\nCiara_[m.03h_0_z],9\nBrad_Pitt_[m.0c6qh],0\nCiara_Bravo_[m.09gklgx],1\n")
    assert read_labels(tmp_path / "labels.csv") == ("Brad Pitt", "Ciara Bravo", "Ciara")
    (tmp_path / "labels.csv").write_text("Labels,Index\n")
    with pytest.raises(UserInputError, match="no labels"):
        read_labels(tmp_path / "labels.csv")
    with pytest.raises(UserInputError, match="no table"):
        read_labels(tmp_path)


# -- wrong files -----------------------------------------------------------------------------------------------------


def test_missing_weights_say_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(MissingWeightsError, match=r"(?s)not public any more.*CONCEPTBENCH_GIPHY.*det1\.npy.*best_model_states\.pkl.*labels\.csv"):
        Giphy()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(MissingWeightsError, match=r"does not find face_detection/det1\.npy in"):
        Giphy()


def test_the_environment_names_the_folder(folder, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(folder))
    assert giphy._folder(None) == folder and giphy._folder(str(folder)) == folder


def test_a_recogniser_of_other_names_or_persons_is_recognised(folder, tmp_path):
    other = tmp_path / "other.pkl"
    torch.save({"conv1.weight": torch.zeros(2)}, other)
    with pytest.raises(UserInputError, match=rf"'stem\.0\.weight' is missing.*sha256 {sha256_file(other)}"):
        load_recogniser(other, 3)
    with pytest.raises(UserInputError, match=r"'fc2\.weight' is \(2306, 256\), not \(3, 256\)"):
        load_recogniser(folder / RECOGNISER, 3)


def test_a_bare_state_dict_gives_the_same_network(folder, judge, tmp_path):
    state = {k.removeprefix("model."): v for k, v in torch.load(folder / RECOGNISER, weights_only=True)["model_state"].items()}
    torch.save(state, tmp_path / "bare.pkl")
    network = load_recogniser(tmp_path / "bare.pkl", PERSONS)
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), judge.recogniser.state_dict().values(), strict=True))
    assert not network.training
