"""What a suite measures is checked as a whole before anything is trained or drawn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from world import ColourJudge, write_suite

from conceptbench.core.errors import NotComparableError, UserInputError
from conceptbench.core.judge import JudgeCard
from conceptbench.core.metric import SetMetric
from conceptbench.core.registry import JUDGES, METRICS
from conceptbench.core.schemas import Strict, Suite
from conceptbench.core.whole_metric import DerivedMetric
from conceptbench.engine.measures import load_measures, registered_judge, source_protocols

TRAINED = {"own": {"trunk": "colour", "head": "subject", "classes": {"red": "x", "blue": ""}}}


class Spread(SetMetric):
    """A set beside the base."""

    name, summary, role, id, arithmetic, beside = "test-spread", "", "classifier", "test-spread", "mean", "base"
    better = applies = reading = estimate = None


class Twice(DerivedMetric):
    """Made of one other metric."""

    name, summary, arithmetic = "test-twice", "", "twice"

    class Config(Strict):
        of: str = "esr-1"

    id = property(lambda self: f"test-twice-{self.config.of}")
    sources = property(lambda self: (self.config.of,))
    better = combine = None


METRICS.add("test-spread", Spread)
METRICS.add("test-twice", Twice)


class Own:
    """A judge as the suite trains it: its card has a hash behind the name."""

    def __init__(self, name):
        self.card = JudgeCard(f"{name}~12345678", "classifier", "a" * 64, "", "", "", {"subject": ("red", "blue")})


def suite_of(tmp_path, *metrics, **changes):
    value = yaml.safe_load(write_suite(tmp_path, **changes).read_text())
    return Suite.model_validate({**value, "metrics": [*value["metrics"], *metrics]})


class Loading:
    """Gives judges, and keeps which were asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, name):
        self.asked.append(name)
        return Own(name) if name in TRAINED else registered_judge(name)


@pytest.mark.parametrize(
    ("metrics", "changes", "error", "text"),
    [
        ((), {"headline": {"erased": "esr-11", "kept": "psr-1"}}, UserInputError, "unknown headline metric 'esr-11'; did you mean 'esr-1'"),
        ((), {"headline": {"erased": "esr-1/colour", "kept": "psr-1"}}, UserInputError, "'esr-1/colour' is given as ID/JUDGE, and a headline takes"),
        ([{"metric": "test-twice", "options": {"of": "ers-1"}}], {}, UserInputError, "did you mean 'esr-1'"),
        ([{"metric": "psr", "judge": "own"}], {}, NotComparableError, "'psr-1' has 2 protocols"),
        ([{"metric": "psr", "judge": "colour"}], {}, UserInputError, "numbers 2 and 10 of the metrics of 'tiny' are both psr-1@top1-of-4way/colour"),
        ([{"metric": "psr", "judge": "own", "each": {"k": [1, 1]}}], {}, UserInputError, "numbers 10 and 10"),
        ([{"metric": "cost", "options": {"of": "seconds"}}], {}, UserInputError, "numbers 7 and 10"),
        ([{"metric": "psr", "judge": "own", "options": {"kk": 2}}], {}, UserInputError, "options of metric 'psr'"),
        ([{"metric": "lpips", "judge": "own"}], {}, UserInputError, "role 'distance', and 'own' is a classifier"),
        ([{"metric": "weight_change", "options": {"form": "tensors"}, "concepts": ["ab"]}], {}, UserInputError, "cannot be limited to concepts"),
        ([{"metric": "test-twice", "concepts": ["ab"]}], {}, UserInputError, "cannot be limited to concepts"),
        ([{"metric": "test-twice", "judge": "own"}], {}, UserInputError, "asks no judge"),
    ],
)
def test_what_is_wrong_is_found_before_a_judge_is_trained(tmp_path, metrics, changes, error, text):
    load = Loading()
    suite = suite_of(tmp_path, {"metric": "acc", "judge": "own"}, *metrics, judges=TRAINED, **changes)
    with pytest.raises(error) as caught:
        load_measures(suite, load)
    assert text in str(caught.value) and "own" not in load.asked


def test_metrics_have_the_cards_of_the_judges_that_were_trained(tmp_path):
    load = Loading()
    made = load_measures(suite_of(tmp_path, {"metric": "acc", "judge": "own"}, {"metric": "test-twice", "options": {"of": "acc-1/own"}}, judges=TRAINED), load)
    acc = next(m for m in made.images if m.metric.name == "acc")
    assert acc.judge == "own" and acc.metric.judge.sha256 == "a" * 64 and acc.metric.protocol.endswith("/own~12345678")
    assert load.asked == ["colour", "length", "distance", "own"] == list(made.judges)  # each once, the trained one last
    assert made.order[-2:] == ("acc-1", "test-twice-acc-1/own")


def test_a_registered_judge_is_loaded_once_and_an_unasked_one_never(tmp_path):
    load = Loading()
    load_measures(suite_of(tmp_path, judges=TRAINED), load)
    assert sorted(load.asked) == ["colour", "distance", "length"]


def test_only_for_sources_the_judge_is_advised(tmp_path, monkeypatch):
    class Other(ColourJudge):
        def __init__(self):
            super().__init__()
            self.card = replace(self.card, id="colour-c")

    monkeypatch.setitem(JUDGES._added, "colour-c", Other)
    with pytest.raises(NotComparableError) as of_headline:
        load_measures(suite_of(tmp_path, {"metric": "esr", "judge": "colour-c"}))
    again = {"metric": "nothing", "judge": "colour-c"}
    with pytest.raises(NotComparableError) as of_source:
        load_measures(suite_of(tmp_path, again, {"metric": "test-twice", "options": {"of": "nothing"}}))
    assert "ID/JUDGE" not in str(of_headline.value) and "ID/JUDGE" in str(of_source.value)
    made = load_measures(suite_of(tmp_path, again, {"metric": "test-twice", "options": {"of": "nothing/colour-c"}}))
    protocols = source_protocols(made)
    assert "nothing" not in protocols and protocols["nothing/colour-c"].endswith("/colour-c") and protocols["nothing/colour"].endswith("/colour")


def test_what_is_read_of_a_training_must_be_watched(tmp_path):
    with pytest.raises(UserInputError, match="the suite watches nothing"):
        load_measures(suite_of(tmp_path, {"metric": "learning_curve", "judge": "length"}))


def test_protocols_by_the_names_of_sources(tmp_path):
    made = load_measures(
        suite_of(tmp_path, {"metric": "acc", "judge": "own"}, {"metric": "test-spread", "judge": "colour"}, {"metric": "test-twice"}, judges=TRAINED), Loading()
    )
    found = source_protocols(made)
    assert found["esr-1"] == found["esr-1/colour"] == "esr-1@top1-of-4way/colour"
    assert found["test-spread"] == found["test-spread/colour"] == "test-spread@mean/colour"
    assert found["acc-1"] == found["acc-1/own"] and found["acc-1"].endswith("/own~12345678")
    assert not [n for n in found if n.startswith(("test-twice", "cost", "weight"))]
