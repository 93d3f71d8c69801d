from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from pydantic import ValidationError
from scipy.special import softmax

from conceptbench.core.errors import MissingWeightsError, UserInputError
from conceptbench.core.judge import JudgeCard, StackedJudge
from conceptbench.core.seeds import image_seeds
from conceptbench.core.trained_judges import PRESETS, HeadTraining, TrainedJudgeSpec, training_seeds
from conceptbench.judges.resnet18 import ResNet18, resnet18, resnet18_sepme
from conceptbench.judges.trained_head import HeadJudge, TrainedHead, split, train_head


def clouds(n=40, width=6, gap=3.0, labels=("a", "b", "c"), seed=0):
    """Features around a mean of each class."""
    rng = np.random.default_rng(seed)
    return {label: (rng.normal(size=(n, width)) + gap * np.eye(width)[i]).astype(np.float32) for i, label in enumerate(labels)}


def test_classes_that_can_be_told_apart_are():
    head = train_head(clouds(gap=6.0), HeadTraining())
    assert head.accuracy == 1.0 and head.classes == ("a", "b", "c")
    assert (head.weights.shape, head.weights.dtype, head.bias.shape, head.bias.dtype) == ((3, 6), np.float32, (3,), np.float32)
    fresh = clouds(gap=6.0, seed=9)
    said = np.concatenate(list(fresh.values())) @ head.weights.T + head.bias
    assert np.mean(said.argmax(1) == np.repeat(np.arange(3), 40)) > 0.99


def test_noise_is_told_apart_by_chance_on_the_held_out_part_only():
    """An accuracy on the training part, or on a part that leaks into it, would be far above a third: 60 features, 63 images."""
    accuracies = [train_head(clouds(n=30, width=60, gap=0.0, seed=s), HeadTraining(lr=1.0, epochs=30)).accuracy for s in range(6)]
    assert 0.2 < np.mean(accuracies) < 0.47


def by_hand(features, training):
    """The same training with gradients written out, one triangle of the learning rate, and torch's counter-moving momentum."""
    generator = torch.Generator().manual_seed(training.seed)
    numbers = {label: len(f) for label, f in features.items()}
    train, _ = split(numbers, training.held_out, generator)
    x, y = np.concatenate(list(features.values())).astype(float)[train], np.repeat(np.arange(len(features)), list(numbers.values()))[train]
    k, d = len(features), x.shape[1]
    w, b = (((2 * torch.rand(*s, generator=generator).double() - 1) / d**0.5).numpy() for s in ((k, d), (k,)))
    speeds, step, steps = [0.0, 0.0], 0, training.epochs * -(-len(y) // training.batch)
    for _ in range(training.epochs):
        order = torch.randperm(len(y), generator=generator).numpy()
        for start in range(0, len(y), training.batch):
            rows = order[start : start + training.batch]
            height = 1 - abs(2 * step / steps - 1)
            error = (softmax(x[rows] @ w.T + b, 1) - np.eye(k)[y[rows]]) / len(rows)
            slopes = [error.T @ x[rows] + training.weight_decay * w, error.sum(0) + training.weight_decay * b]
            # SGD's first step has no momentum yet
            speeds = [slope + (0.9 - 0.1 * height) * speed for slope, speed in zip(slopes, speeds, strict=True)]
            w, b = (value - height * training.lr * speed for value, speed in zip((w, b), speeds, strict=True))
            step += 1
    return w, b


@pytest.mark.parametrize("settings", [{"batch": 7}, {"weight_decay": 0.3}, {"lr": 0.5, "seed": 5, "held_out": 0.5}])
def test_training_equals_gradients_by_hand(settings):
    training = HeadTraining(epochs=4, **settings)
    features = clouds(n=12)
    head = train_head(features, training)
    w, b = by_hand(features, training)
    assert np.abs(head.weights - w).max() < 1e-6 and np.abs(head.bias - b).max() < 1e-6


def test_the_same_bytes_again_with_any_number_of_threads():
    before = torch.get_num_threads()
    try:
        heads = []
        for number in (1, 2):
            torch.set_num_threads(number)
            heads.append(train_head(clouds(width=64), HeadTraining(epochs=3)))
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(before)
    assert heads[0].sha256 == heads[1].sha256 and np.array_equal(heads[0].weights, heads[1].weights)
    assert train_head(clouds(width=64), HeadTraining(epochs=3, seed=1)).sha256 != heads[0].sha256


def test_torchs_own_generator_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    train_head(clouds(n=4), HeadTraining(epochs=1))
    assert torch.rand(1) == expected


@pytest.mark.parametrize(("n", "tests"), [(2, 1), (3, 1), (10, 3), (30, 9), (1000, 300)])
def test_the_split_is_by_class_and_complete(n, tests):
    training, testing = split({"a": n, "b": n}, 0.3, torch.Generator().manual_seed(0))
    assert sorted([*training.tolist(), *testing.tolist()]) == list(range(2 * n))
    assert sum(i < n for i in testing.tolist()) == sum(i >= n for i in testing.tolist()) == tests
    assert len(split({"a": 10}, 0.99, torch.Generator())[0]) == 1


def test_best_is_the_best_epoch_and_last_is_the_last():
    """A layer that gets worse: with a huge learning rate the accuracy on the held-out part goes up and down."""
    features = clouds(n=30, width=30, gap=1.0)
    last, best = (train_head(features, HeadTraining(lr=30.0, epochs=12, keep=keep)) for keep in ("last", "best"))
    assert last.epoch == 12 and best.accuracy >= last.accuracy
    every = [train_head(features, HeadTraining(lr=30.0, epochs=12, keep="best", seed=s)) for s in range(5)]
    assert any(head.epoch < 12 for head in every)
    for seed, head in enumerate(every):  # the weights are of that epoch, too
        _, test = split({label: 30 for label in features}, 0.3, torch.Generator().manual_seed(seed))
        said = (np.concatenate(list(features.values()))[test] @ head.weights.T + head.bias).argmax(1)
        assert np.mean(said == test.numpy() // 30) == pytest.approx(head.accuracy)
    easy = train_head(clouds(gap=9.0), HeadTraining(keep="best"))
    assert easy.accuracy == 1 and easy.epoch == 20  # of equal ones the last


def test_the_confusion_matrix_has_true_classes_in_rows():
    features = clouds(gap=8.0)
    features["c"] = features["a"].copy()  # the same pictures under two names
    confusion = train_head(features, HeadTraining()).confusion
    assert confusion.sum(1).tolist() == [12, 12, 12] and confusion[1].tolist() == [0, 12, 0]
    assert confusion[:, 1].tolist() == [0, 12, 0]


def test_fewer_images_than_features():
    head = train_head(clouds(n=4, width=512), HeadTraining())
    assert head.weights.shape == (3, 512) and np.isfinite(head.weights).all() and head.confusion.sum() == 3


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"a": np.zeros((4, 3), np.float32)}, "at least two classes"),
        ({"a": np.zeros((4, 3), np.float32), "b": np.zeros((1, 3), np.float32)}, r"class 'b' has 1 image\(s\)"),
        ({"a": np.zeros((4, 3), np.float32), "b": np.zeros((4, 5), np.float32)}, "one width"),
        ({"a": np.zeros(4, np.float32), "b": np.zeros(4, np.float32)}, "shape"),
        ({"a": np.zeros((4, 3), np.float32), "b": np.full((4, 3), np.nan, np.float32)}, "class 'b' are not all finite"),
    ],
)
def test_features_that_cannot_be_learned_from(features, message):
    with pytest.raises(UserInputError, match=message):
        train_head(features, HeadTraining())


class Trunk:
    """The mean colours of an image."""

    def __init__(self, role="features", sha="1" * 64):
        self.card = JudgeCard("colours", role, sha, "here", "none", "mean over pixels", {})

    def __call__(self, images):
        return {"features": (images.reshape(len(images), -1, 3).mean(1) / 255).astype(np.float32)}


LAYER = TrainedHead(("x", "y"), np.array([[2, 0, 1], [0, 3, 0]], np.float32), np.array([0.5, -0.5], np.float32), np.array([[3, 1], [0, 4]]), 20)


def pictures(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 4, 5, 3), np.uint8)


def test_the_judge_is_trunk_layer_and_softmax():
    judge = HeadJudge("styles", Trunk(), "style", LAYER)
    images = pictures(70)
    features = np.stack([[i[..., c].astype(float).mean() / 255 for c in range(3)] for i in images])
    expected = softmax(features @ LAYER.weights.T.astype(float) + LAYER.bias, 1)
    said = judge(images)
    assert list(said) == ["style"] and said["style"].dtype == np.float32 and np.abs(said["style"] - expected).max() < 1e-6
    assert np.array_equal(judge(images[5:8])["style"], said["style"][5:8])  # in any company
    assert judge(np.zeros((1, 4, 5, 3), np.uint8))["style"].tolist()[0] == pytest.approx(softmax([0.5, -0.5]).tolist())


def test_features_of_the_trunk_are_as_good_as_images():
    judge, images = HeadJudge("styles", Trunk(), "style", LAYER), pictures(70)
    assert isinstance(judge, StackedJudge) and not isinstance(judge.trunk, StackedJudge)
    features = judge.trunk(images)["features"]
    one_by_one = np.concatenate([judge.from_features(features[i : i + 1])["style"] for i in range(70)])
    assert judge.from_features(features)["style"].tobytes() == judge(images)["style"].tobytes() == one_by_one.tobytes()


def test_the_judges_card():
    card = HeadJudge("styles", Trunk(), "style", LAYER).card
    assert (card.role, card.labels, card.preprocessing) == ("classifier", {"style": ("x", "y")}, "mean over pixels")
    assert card.id == f"styles~{card.sha256[:8]}"
    assert "87.5 % right on 8 held-out images" in card.source and "colours" in card.source and len(card.sha256) == 64
    changes = ({"weights": LAYER.weights + 1}, {"bias": LAYER.bias + 1}, {"classes": ("y", "x")})
    others = [HeadJudge("styles", Trunk(), "style", dataclasses.replace(LAYER, **change)).card for change in changes]
    others.append(HeadJudge("styles", Trunk(sha="2" * 64), "style", LAYER).card)
    assert len({card.sha256, *(o.sha256 for o in others)}) == len({card.id, *(o.id for o in others)}) == 5
    noted = HeadJudge("styles", Trunk(), "style", LAYER, "Too good.").card
    assert noted.source == f"{card.source}. Too good." and noted.id == card.id  # what is said about a judge makes it no other one
    with pytest.raises(UserInputError, match="role 'features', and 'colours' is a detector"):
        HeadJudge("styles", Trunk("detector"), "style", LAYER)


SPEC = {"trunk": "resnet18", "head": "style", "classes": {"van gogh": "Van Gogh", "blank": ""}}
SEPME = {**SPEC, "preset": "sepme", "seeds_of": "artists"}


def test_what_a_manifest_says():
    spec = TrainedJudgeSpec(**SPEC)
    assert (spec.seeds, spec.keep, spec.epochs, spec.batch, spec.lr, spec.weight_decay, spec.held_out) == ("disjoint", "last", 20, 30, 0.01, 5e-4, 0.3)
    assert spec.note == "" and list(spec.classes) == ["van gogh", "blank"]
    sepme = TrainedJudgeSpec(**SEPME)
    assert (sepme.seeds, sepme.keep, sepme.images) == ("overlap", "best", 1000) and "too good" in sepme.note
    small = TrainedJudgeSpec(**SEPME, images=50, keep="last")
    assert (small.images, small.keep, small.seeds) == (50, "last", "overlap")
    assert "seeds of the evaluation" in TrainedJudgeSpec(**SPEC, seeds="overlap", seeds_of="artists").note
    assert TrainedJudgeSpec.model_validate(sepme.model_dump()) == sepme and next(iter(PRESETS)) == "default"


@pytest.mark.parametrize(
    "change",
    [
        {"preset": "sepmee"},
        {"preset": 3},
        {"classes": {"one": "x"}},
        {"classes": {"": "x", "b": "y"}},
        {"held_out": 1.0},
        {"head": "a/b"},
        {"epochs": 0},
        {"images": 1},
        {"seed": -1},
        {"images_per_class": 5},
        {"seeds": "overlap"},
        {"preset": "sepme"},
        {"seeds_of": "artists"},
    ],
)
def test_what_a_manifest_must_not_say(change):
    with pytest.raises(ValidationError):
        TrainedJudgeSpec(**{**SPEC, **change})
    with pytest.raises(ValidationError):
        TrainedJudgeSpec.model_validate([1])


def test_training_seeds_are_nobodys_evaluation_seeds():
    spec = TrainedJudgeSpec(**SPEC, images=300)
    seeds = training_seeds(spec, "styles", "blank")
    assert len(set(seeds)) == 300 and not {s % 2 for s in seeds} & {s % 2 for s in image_seeds(7, "p", range(50), "heldout")}
    assert not set(seeds) & set(image_seeds(7, "p", range(300), "development"))
    others = [
        training_seeds(spec, "styles", "van gogh"),
        training_seeds(spec, "other", "blank"),
        training_seeds(spec.model_copy(update={"seed": 1}), "styles", "blank"),
    ]
    assert not any(set(seeds) & set(other) for other in others) and seeds == training_seeds(spec, "styles", "blank")


def test_overlapping_seeds_are_the_evaluations_with_repetitions():
    spec = TrainedJudgeSpec(**SEPME)
    pool = list(range(100, 160))
    seeds = training_seeds(spec, "styles", "blank", pool)
    assert len(seeds) == 1000 and set(seeds) == set(pool) and seeds == training_seeds(spec, "styles", "blank", pool)
    assert seeds != training_seeds(spec, "styles", "van gogh", pool)
    with pytest.raises(UserInputError, match="seeds: disjoint"):
        training_seeds(spec, "styles", "blank")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A torch cache with random weights of the real architecture under the real file name, and the network."""
    folder = tmp_path_factory.mktemp("hub") / "checkpoints"
    folder.mkdir()
    torch.manual_seed(0)
    network = torchvision.models.resnet18().eval()
    torch.save(network.state_dict(), folder / torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1])
    return folder.parent, network


@pytest.mark.parametrize("make", [resnet18, resnet18_sepme])
def test_resnet18_gives_what_its_last_layer_gets(cache, monkeypatch, make):
    folder, network = cache
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder))
    judge = make()
    images = np.random.default_rng(0).integers(0, 256, (2, 300, 280, 3), np.uint8)
    given = []
    handle = network.fc.register_forward_hook(lambda _, inputs, __: given.append(inputs[0]))
    if make is resnet18:
        prepare = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    else:
        steps = torchvision.transforms
        prepare = steps.Compose([steps.Resize(256), steps.CenterCrop(256), steps.ToTensor()])
    prepared = torch.stack([prepare(Image.fromarray(i)) for i in images])
    with torch.no_grad():
        network(prepared)
    handle.remove()
    said = judge(images)["features"]
    assert prepared.shape[-1] == (224 if make is resnet18 else 256) and said.shape == (2, 512) and said.dtype == np.float32
    assert np.abs(said - given[0].numpy()).max() < 0.02 * np.abs(said).max()  # PIL and tensor resizing differ in the last bit of uint8
    assert judge.card.role == "features" and judge.card.labels == {}


def test_the_two_preparations_are_two_judges(cache, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(cache[0]))
    first, second = resnet18(), resnet18_sepme()
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    assert first.card.id != second.card.id and first.card.preprocessing != second.card.preprocessing
    assert np.abs(first(image)["features"] - second(image)["features"]).max() > 0.05
    with pytest.raises(UserInputError, match="did you mean 'sepme'"):
        ResNet18("x", "sepmee")


def test_resnet18_without_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(MissingWeightsError, match=r"resnet18-f37072fd\.pth"):
        resnet18()
