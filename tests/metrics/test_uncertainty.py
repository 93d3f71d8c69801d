from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from conceptbench.core.errors import UserInputError
from conceptbench.core.judge import JudgeCard
from conceptbench.core.metric import Asked, Scored
from conceptbench.core.protocols import presets_of
from conceptbench.core.results import Estimate
from conceptbench.core.schemas import Concept
from conceptbench.metrics.uncertainty import ClassProbability, Entropy, entropy

JUDGE = JudgeCard("fake", "classifier", "0" * 64, "", "", "", {"subject": ("a", "b", "c", "d"), "style": ("photo", "s")})
A = Concept(name="a", kind="object", phrases=("an a",), labels=("subject/a", "subject/c"))
S = Concept(name="s", kind="style", phrases=("s",), labels=("style/s",))
STRANGER = Concept(name="x", kind="object", phrases=("x",), labels=("mark/ring",))
ROWS = st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4).filter(lambda p: sum(p) > 1e-3)


def make(kind, **options):
    return kind(kind.Config(**options), JUDGE)


def scored(subject, concept=A, style=(0.9, 0.1)):
    return Scored(Asked(concept, "target", "p"), {"subject": np.array(subject, np.float32), "style": np.array(style, np.float32)})


@given(ROWS)
def test_entropy_equals_scipy(row):
    assert make(Entropy).value(scored(row)) == pytest.approx(stats.entropy(row), abs=1e-6)


@pytest.mark.parametrize("classes", [1, 2, 10, 1000])
def test_entropy_of_uniform_and_certain_answers(classes):
    assert entropy(np.full(classes, 1 / classes)) == pytest.approx(math.log(classes))
    certain = entropy(np.eye(classes)[0])
    assert certain == 0 and math.copysign(1, certain) == 1


def test_mean_of_entropies_not_entropy_of_the_mean():
    """Two sure answers that differ: SA's H is 0, and the entropy of their mean would be ln 2."""
    values = [make(Entropy).value(scored(row)) for row in ([1, 0, 0, 0], [0, 1, 0, 0])]
    assert Estimate.of(values, ["p", "q"], planned=2, rate=Entropy.is_rate, unit="nats", better="higher").value == 0
    logits = np.random.default_rng(0).normal(size=(50, 4))
    rows = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    of_images = [make(Entropy).value(scored(row)) for row in rows]
    assert np.mean(of_images) == pytest.approx(stats.entropy(rows, axis=1).mean(), abs=1e-6)
    assert np.mean(of_images) < stats.entropy(rows.mean(0)) - 0.1


def test_probability_is_of_all_labels_together():
    assert make(ClassProbability).value(scored([0.25, 0.25, 0.5, 0])) == 0.75
    assert make(ClassProbability).value(scored([1, 0, 0, 0], concept=S)) == pytest.approx(0.1)
    twice = A.model_copy(update={"labels": ("subject/a", "subject/a")})
    assert make(ClassProbability).value(scored([0.5, 0.5, 0, 0], concept=twice)) == 0.5


@given(ROWS)
def test_probability_and_the_others_make_one(row):
    others = A.model_copy(update={"labels": ("subject/b", "subject/d")})
    assert make(ClassProbability).value(scored(row)) + make(ClassProbability).value(scored(row, others)) == pytest.approx(1)
    assert 0 <= make(ClassProbability).value(scored(row)) <= 1


def test_among_renormalises():
    options = {"among": ("subject/a", "subject/b")}
    assert make(ClassProbability, **options).value(scored([0.1, 0.3, 0.6, 0])) == pytest.approx(0.25)
    assert make(Entropy, **options).value(scored([0.1, 0.3, 0.6, 0])) == pytest.approx(stats.entropy([0.25, 0.75]), abs=1e-6)
    assert make(Entropy, **options).value(scored([0, 0, 1, 0])) is None  # none of the two has any probability
    assert make(Entropy, **options).arithmetic.startswith("mean-nats-of-2way-")
    assert not make(Entropy, **options).applies(S, "target")
    with pytest.raises(UserInputError, match="did you mean 'subject/a'"):
        make(Entropy, among=("subject/aa", "subject/b"))


@pytest.mark.parametrize("kind", [ClassProbability, Entropy])
@pytest.mark.parametrize("row", [[0, 0, 0, 0], [np.nan, 0.5, 0.5, 0], [1.5, -0.5, 0, 0], [np.inf, 0, 0, 0]])
def test_no_distribution_is_a_failure(kind, row):
    assert make(kind).value(scored(row)) is None


def test_directions_and_protocols():
    p, h = make(ClassProbability), make(Entropy)
    assert (p.better("target"), p.better("retained")) == ("lower", "higher")
    assert (h.better("target"), h.better("retained")) == ("higher", "lower")
    assert p.protocol == "class_probability@mean-p-of-4+2way/fake" and h.protocol == "entropy@mean-nats-of-4+2way/fake"
    assert (p.unit, h.unit, p.is_rate, h.is_rate) == ("probability", "nats", False, False)
    for metric in (p, h):
        assert metric.applies(A, "target") and metric.applies(A, "retained") and not metric.applies(STRANGER, "target")
        assert metric.reference and metric.failure_modes
        presets = presets_of(metric.name)
        assert list(presets) == ["default", "sa"] and all(make(type(metric), **preset.options) for preset in presets.values())
