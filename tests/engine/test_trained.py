"""Judges that a suite trains: made once, the same for every part of the suite, and no second look at an image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from running import carry_out, runner_of
from world import PROMPTS, write_suite

from conceptbench.core.errors import StoppedError, UserInputError
from conceptbench.core.judge import JudgeCard
from conceptbench.core.manifests import load_concepts, load_prompts, load_suite
from conceptbench.core.registry import JUDGES
from conceptbench.core.trained_judges import PRESETS
from conceptbench.engine import trained
from conceptbench.engine.judging import Hearing
from conceptbench.engine.provenance import results_document
from conceptbench.engine.session import Session
from conceptbench.engine.store import Store
from conceptbench.engine.trained import TrainedJudges
from conceptbench.judges.trained_head import HeadJudge, TrainedHead

CLASSES = {"red": "ab", "green": "ef", "blue": ""}
IMAGES = 4


class MeansJudge:
    """The mean colours of an image; counts how many images it looked at."""

    looked = 0

    def __init__(self, sha="1" * 64):
        self.card = JudgeCard("means", "features", sha, "here", "none", "none", {})

    def __call__(self, images):
        MeansJudge.looked += len(images)
        return {"features": (images.reshape(len(images), -1, 3).mean(1) / 255).astype(np.float32)}


JUDGES.add("means", MeansJudge)


def suite_with_head(folder, metrics=(), **judge):
    """The tiny suite with a head of its own and only what asks it, beside the headline's metrics."""
    own = {"trunk": "means", "head": "subject", "classes": CLASSES, "images": IMAGES, "epochs": 2, **judge}
    asked = [{"metric": m, "judge": "colour"} for m in ("esr", "psr")] + [{"metric": "acc", "judge": "heads"}, *metrics]
    load_concepts.cache_clear()
    load_prompts.cache_clear()
    return write_suite(folder, judges={"heads": own}, metrics=asked)


@pytest.fixture
def drawn(monkeypatch):
    """Seeds of the training images that a judge asks for, by class."""
    found = {}
    generate = trained.generate_alone

    def noted(base, specs, *args, **kwargs):
        found.setdefault(specs[0].concept, []).append([s.seed for s in specs])
        return generate(base, specs, *args, **kwargs)

    monkeypatch.setattr(trained, "generate_alone", noted)
    return found


def head_of(sd1, suite, store, **kwargs):
    return TrainedJudges(sd1, suite, Store(store), Session(), **kwargs).judge("heads")


def test_a_head_is_trained_once_and_a_damaged_one_again(tmp_path, sd1, drawn):
    suite, store = load_suite(str(suite_with_head(tmp_path / "suite"))), tmp_path / "store"
    MeansJudge.looked = 0
    first = head_of(sd1, suite, store)
    assert list(drawn) == list(CLASSES) and MeansJudge.looked == IMAGES * len(CLASSES)
    (path,) = (store / "judges").iterdir()
    second = head_of(sd1, suite, store)
    assert [len(asked) for asked in drawn.values()] == [1, 1, 1] and MeansJudge.looked == IMAGES * len(CLASSES) and second.card == first.card
    path.write_bytes(path.read_bytes()[:-4])
    again = head_of(sd1, suite, store)
    for found in (again.layer, trained._read(path)):
        assert all(getattr(found, n).tobytes() == getattr(first.layer, n).tobytes() for n in ("weights", "bias", "confusion"))
    assert again.card == first.card and found.classes == tuple(CLASSES)
    assert [len(asked) for asked in drawn.values()] == [2, 2, 2] and MeansJudge.looked == IMAGES * len(CLASSES)  # answers are in the store


def test_another_process_waits_and_finds_the_head_made(tmp_path, sd1, drawn, monkeypatch):
    suite, store, train = load_suite(str(suite_with_head(tmp_path / "suite"))), tmp_path / "store", trained.train_head

    def refuse():
        raise StoppedError("it is locked")

    def guarded(*args):
        (lock,) = (store / "locks").iterdir()
        with pytest.raises(StoppedError, match="it is locked"), Store(store).lock(lock.name, refuse):
            pass
        return train(*args)

    monkeypatch.setattr(trained, "train_head", guarded)
    first = head_of(sd1, suite, store)
    reads = []

    def late(path):  # it looked before the other one was done
        reads.append(path)
        return None if len(reads) == 1 else read(path)

    read = trained._read
    monkeypatch.setattr(trained, "_read", late)
    assert head_of(sd1, suite, store).card == first.card
    assert len(reads) == 2 and [len(asked) for asked in drawn.values()] == [1, 1, 1]


def test_collecting_trains_nothing(tmp_path, sd1, drawn):
    suite, store = load_suite(str(suite_with_head(tmp_path / "suite"))), tmp_path / "store"
    with pytest.raises(UserInputError, match="judge 'heads' of suite 'tiny' is not trained yet") as error:
        head_of(sd1, suite, store, collect=True)
    assert error.value.hint == "conceptbench run tiny trains it" and not drawn and not (store / "images").exists()
    made = head_of(sd1, suite, store)
    assert head_of(sd1, suite, store, collect=True).card == made.card


def test_overlapping_seeds_are_those_of_the_whole_set_whatever_is_carried_out(tmp_path, folders, sd1, drawn):
    path = suite_with_head(tmp_path / "suite", preset="sepme", images=30, seeds_of=str(tmp_path / "suite" / "prompts.csv"))
    whole = runner_of(path, folders["sd1"], tmp_path / "store", [])
    evaluation = {s.seed for images in whole.plan.images.values() for s in images}
    seeds = {label: asked[0] for label, asked in drawn.items()}
    assert {s for own in seeds.values() for s in own} == evaluation and len(evaluation) == 3 * PROMPTS
    assert len({tuple(own) for own in seeds.values()}) == 3
    ids = {whole.measures.judges["heads"].card.id}
    suite = load_suite(str(path))
    for task in suite.tasks:
        ids.add(head_of(sd1, suite.model_copy(update={"tasks": (task,)}), tmp_path / "store").card.id)
    for asked in ({"limit": 1}, {"split": "development"}):
        ids.add(runner_of(path, folders["sd1"], tmp_path / "store", [], **asked).measures.judges["heads"].card.id)
    assert len(ids) == 1 and [len(asked) for asked in drawn.values()] == [1, 1, 1]


def test_overlap_with_a_set_of_no_held_out_prompts(tmp_path, sd1):
    (tmp_path / "none.csv").write_text("prompt_id,text,concept,split\na,ab,ab,development\n")
    suite = load_suite(str(suite_with_head(tmp_path / "suite", seeds="overlap", seeds_of=str(tmp_path / "none.csv"))))
    with pytest.raises(UserInputError, match="seeds of the evaluation, and there is none"):
        head_of(sd1, suite, tmp_path / "store")


def test_a_heads_labels_hash_and_note_reach_the_results(tmp_path, folders):
    path = suite_with_head(tmp_path / "suite", preset="sepme", images=6, seeds_of=str(tmp_path / "suite" / "prompts.csv"))
    outcome, runner = carry_out(path, folders, tmp_path / "store", [])
    judge = runner.measures.judges["heads"]
    row = next(r for r in outcome.rows if (r.task, r.metric, r.role, r.concept) == ("two", "acc-1", "target", "ef"))
    assert judge.card.id == f"heads~{judge.card.sha256[:8]}" and row.protocol == f"acc-1@top1-of-3way/{judge.card.id}"
    specs = [s for s in runner.plan.images["two"] if s.concept == "ef"]
    said = judge(runner.store.read_images([s.key(runner.plan.info, "base") for s in specs]))["subject"]
    assert row.value == np.mean(said.argmax(1) == list(CLASSES).index("green")) and row.n_scored == PROMPTS
    source = results_document(outcome, runner.measures.judges, [])["canonical"]["judges"]["heads"]["source"]
    assert source.startswith("linear layer on means (here)") and source.endswith(PRESETS["sepme"].note)


LAYER = TrainedHead(("x", "y"), np.array([[2, 0, 1], [0, 3, 0]], np.float32), np.array([0.5, -0.5], np.float32), np.eye(2, dtype=np.int64), 2)


def heard(store, judges, batch=3, count=7):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 6, 5, 3), np.uint8)
    hearing, keys = Hearing(judges, None, "base", store), [f"image-{i}" for i in range(count)]
    for start in range(0, count, batch):
        part = slice(start, start + batch)
        hearing.look(keys[part], [None] * len(keys[part]), pixels[part])
    return hearing


@pytest.mark.parametrize("order", [("head", "trunk"), ("trunk", "head")])
def test_a_trunk_that_is_asked_itself_looks_once_for_both(tmp_path, order):
    alone = heard(Store(tmp_path / "alone"), {"head": HeadJudge("head", MeansJudge(), "subject", LAYER)})
    both = {"head": HeadJudge("head", MeansJudge(), "subject", LAYER), "trunk": MeansJudge()}
    MeansJudge.looked = 0
    hearing = heard(Store(tmp_path / "both"), {n: both[n] for n in order})
    assert MeansJudge.looked == 7 and hearing.looked == {"head": 7, "trunk": 7} and list(hearing.looked) == list(order)
    for key, said in alone.said["head"].items():
        assert hearing.said["head"][key]["subject"].tobytes() == said["subject"].tobytes()
    assert len(alone.said["head"]) == 7


def test_a_new_head_on_stored_features_needs_no_look(tmp_path):
    store, trunk = Store(tmp_path), MeansJudge()
    heard(store, {"trunk": trunk})
    MeansJudge.looked = 0
    newer = HeadJudge("head", MeansJudge(), "subject", replace(LAYER, bias=LAYER.bias + 1))
    hearing = heard(store, {"trunk": trunk, "head": newer})
    assert MeansJudge.looked == 0 and hearing.looked == {"trunk": 0, "head": 7}


def test_features_of_another_trunk_are_not_taken(tmp_path):
    MeansJudge.looked = 0
    heard(Store(tmp_path), {"trunk": MeansJudge("2" * 64), "head": HeadJudge("head", MeansJudge(), "subject", LAYER)})
    assert MeansJudge.looked == 14
