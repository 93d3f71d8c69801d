"""Names in a suite that mean something elsewhere, and metrics that cannot be what the suite says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import world
import yaml
from validating import AROUND, added, change, check_eraser, faultless, found, line_of, only

from conceptbench.core.errors import MissingWeightsError
from conceptbench.core.judge import JudgeCard
from conceptbench.core.metric import SetMetric
from conceptbench.core.registry import JUDGES, METRICS, REFERENCES
from conceptbench.core.schemas import Strict
from conceptbench.core.validation import Surroundings, validate
from conceptbench.core.whole_metric import DerivedMetric


class Near(SetMetric):
    """A set beside whatever the options say."""

    name, summary, role, id, arithmetic = "test-near", "", "classifier", "test-near", "mean"

    class Config(Strict):
        to: str = "base"
        n: int | None = None

    beside = property(lambda self: self.config.to)
    reference_size = property(lambda self: self.config.n)
    better = applies = reading = estimate = None


class Made(DerivedMetric):
    """Made of one other metric."""

    name, summary, id, arithmetic = "test-made", "", "test-made", "itself"

    class Config(Strict):
        of: str = "esr-1"

    sources = property(lambda self: (self.config.of,))
    better = combine = None


METRICS.add("test-near", Near)
METRICS.add("test-made", Made)
REFERENCES.add("test-photos", lambda concepts, n, seed: None)


@pytest.fixture
def suite(tmp_path):
    return faultless(tmp_path)


STYLES = {"trunk": "features", "head": "subject", "classes": {"red": "x", "blue": ""}}


def features(name):
    """Cards as if there were a judge of features."""
    return JudgeCard("features", "features", "", "", "", "", {}) if name == "features" else AROUND.card_of(name)


@pytest.fixture
def with_features(monkeypatch):
    monkeypatch.setitem(JUDGES._added, "features", object)
    return replace(AROUND, card_of=features)


def test_a_headline_takes_an_id_alone(suite):
    line, message = only(change(suite, headline={"erased": "esr-1/colour", "kept": "psr-1"}))[1:3]
    assert line == line_of(suite, "erased:") and "'esr-1/colour' is given as ID/JUDGE, and a headline takes a metric's id alone" in message
    assert "psr-1" in message  # what it may be
    assert found(added(change(suite, headline={"erased": "esr-1", "kept": "psr-1"}), {"metric": "test-made", "options": {"of": "esr-1/colour"}})) == []


def test_only_sources_of_derived_metrics_may_name_a_judge(suite, monkeypatch):
    class Other(world.ColourJudge):
        def __init__(self):
            super().__init__()
            self.card = replace(self.card, id="colour-b")

    monkeypatch.setitem(JUDGES._added, "colour-b", Other)
    message = only(added(suite, {"metric": "esr", "judge": "colour-b"}))[2]
    assert "has 2 protocols: esr-1@top1-of-4way/colour, esr-1@top1-of-4way/colour-b" in message and "ID/JUDGE" not in message
    problems = found(added(suite, {"metric": "test-made"}))
    assert [p[1] for p in problems if "test-made" in p[2] and "ID/JUDGE" in p[2]] == [line_of(suite, "- metric: test-made")] and len(problems) == 2


def test_what_is_not_about_concepts_cannot_be_limited_to_some(suite):
    added(suite, {"metric": "esr", "judge": "colour", "options": {"k": 2}, "concepts": ["ab"]})
    assert found(suite) == []
    lines = []
    for metric in ({"metric": "weight_change", "options": {"form": "tensors"}}, {"metric": "test-made"}):
        added(suite, {**metric, "concepts": ["ab"]})
        lines.append(line_of(suite, "concepts:", len(lines) + 2))  # the suite's own comes first, and the limit that is right
    assert [p[1] for p in found(suite)] == lines
    assert all("cannot be limited to concepts" in p[2] and "leave `concepts` out" in p[2] for p in found(suite))


def test_splits_and_limits_name_what_is_in_the_tasks(suite):
    added(change(suite, splits=["one", "tow", "one"]), {"metric": "esr", "judge": "colour", "options": {"k": 2}, "concepts": ["ab", "eff"]})
    problems = found(suite)
    assert [(p[1], p[3]) for p in problems] == [
        (line_of(suite, "- eff"), False),
        (line_of(suite, "- tow"), False),
        (line_of(suite, "- tow") + 1, False),
    ]
    assert "unknown concept of metric 'esr' in the suite's tasks 'eff'; did you mean 'ef'" in problems[0][2]
    assert "unknown split 'tow'; did you mean 'two'" in problems[1][2] and f"named already, in line {line_of(suite, '- one')}" in problems[2][2]


def test_a_faulty_task_makes_no_further_problems(suite):
    value = yaml.safe_load(suite.read_text())
    value["tasks"][1]["targets"] = 3
    added(change(suite, tasks=value["tasks"], splits=["one", "two"]), {"metric": "psr", "judge": "colour", "options": {"k": 2}, "concepts": ["gh"]})
    assert only(suite)[1] == line_of(suite, "targets: 3")


def test_a_suites_own_judges(suite, with_features):
    added(change(suite, judges={"own": STYLES}), {"metric": "acc", "judge": "own"})
    assert found(suite, with_features) == []
    change(suite, judges={"own": STYLES, "colour": STYLES})
    line, message = only(suite, with_features)[1:3]
    assert line == line_of(suite, "colour:") and "'colour' is taken by a registered judge" in message
    change(suite, judges={"own": {**STYLES, "trunk": "featurs"}})
    line, message = only(suite, with_features)[1:3]
    assert line == line_of(suite, "trunk:") and "unknown judge 'featurs'; did you mean 'features'" in message
    change(suite, judges={"own": {**STYLES, "trunk": "length"}})
    line, message = only(suite, with_features)[1:3]
    assert line == line_of(suite, "trunk:") and "the trunk of judge 'own' needs a judge of role 'features', and 'length' is a image-text" in message
    change(suite, judges={"own": {**STYLES, "seeds": "overlap", "seeds_of": "minni"}})
    assert only(suite, with_features)[1] == line_of(suite, "seeds_of:") and "did you mean 'mini'" in only(suite, with_features)[2]


def test_trunks_and_watching_judges_without_weights_are_skipped(suite, monkeypatch):
    monkeypatch.setitem(JUDGES._added, "features", object)

    def no_weights(name):
        if name in ("features", "length"):
            raise MissingWeightsError("not here", "get them")
        return AROUND.card_of(name)

    added(change(suite, judges={"own": STYLES}, watch={"judge": "length"}), {"metric": "acc", "judge": "own"})
    result = validate(str(suite), Surroundings(no_weights, check_eraser))
    assert result.problems == [] and [t.split(":")[0] for t in result.skipped] == ["judge 'length'", "judge 'features'"]  # each once


def test_who_watches(suite):
    assert found(change(suite, watch={"judge": "length"})) == []
    assert only(change(suite, watch={"judge": "lenth"}))[1:3] == (line_of(suite, "judge: lenth"), "unknown judge 'lenth'; did you mean 'length'?")
    line, message = only(change(suite, watch={"judge": "distance"}))[1:3]
    assert line == line_of(suite, "judge: distance", 1) and "watch needs a judge of role 'image-text', and 'distance' is a distance" in message


@pytest.mark.parametrize(
    ("watch", "metric", "text"),
    [
        ({"judge": "length", "texts": ["a cat"]}, {"options": {"of": "prompt", "text": "a cat"}}, ""),
        ({"judge": "length", "texts": ["a cat"]}, {"options": {"of": "prompt"}, "each": {"text": ["a cat", "a cats"]}}, "'a cats'; did you mean 'a cat'?"),
        (None, {}, "the suite watches nothing: add `watch: {judge: length}`"),
        ({"judge": "mini-clip"}, {}, "has the judge 'length', and 'mini-clip' watches"),
    ],
)
def test_what_is_read_of_a_training_is_watched(suite, watch, metric, text):
    changed = added(change(suite, watch=watch) if watch else suite, {"metric": "learning_curve", "judge": "length", **metric})
    assert [text in p[2] for p in found(changed)] == ([True] if text else [])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, ""),
        ({"to": "others"}, ""),
        ({"to": "FOLDER"}, ""),
        ({"to": "test-photos", "n": 3}, ""),
        ({"to": "test-photos"}, "say how many images with the option n"),
        ({"to": "test-photo", "n": 3}, "unknown reference set 'test-photo'; did you mean 'test-photos'?; or give a folder of images"),
        ({"to": "FOLDER/none"}, "unknown reference set"),
    ],
)
def test_what_sets_are_beside(suite, options, text):
    options = {k: v.replace("FOLDER", str(suite.parent)) if isinstance(v, str) else v for k, v in options.items()}
    added(suite, {"metric": "test-near", "judge": "colour", "options": options})
    if not text:
        assert found(suite) == []
    else:
        assert text in only(suite)[2] and only(suite)[1] == line_of(suite, "options:", 2)
