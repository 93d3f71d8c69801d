from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from conceptbench.core import class_labels
from conceptbench.core.class_labels import Choices
from conceptbench.core.errors import UserInputError
from conceptbench.core.judge import JudgeCard
from conceptbench.core.label_sets import load_label_set
from conceptbench.core.metric import Asked, Scored
from conceptbench.core.protocols import presets_of
from conceptbench.core.registry import JUDGES
from conceptbench.core.schemas import Concept
from conceptbench.metrics.classification import Accuracy, ErasingSuccessRate, Nothing, PreservingSuccessRate, in_top_k

KINDS = {"esr": ErasingSuccessRate, "psr": PreservingSuccessRate, "acc": Accuracy, "nothing": Nothing}
LABELS = {"subject": ("a", "b", "c", "d", "nothing"), "style": ("photo", "s")}
JUDGE = JudgeCard("fake", "classifier", "0" * 64, "", "", "", LABELS)
UNKNOWN = JudgeCard("far", "features", "", "", "", "", {})  # what validating takes for a judge whose weights are not here
A = Concept(name="a", kind="object", phrases=("an a",), labels=("subject/a", "subject/b"))
C = Concept(name="c", kind="object", phrases=("a c",), labels=("subject/c",))
S = Concept(name="s", kind="style", phrases=("s",), labels=("style/s",))
STRANGER = Concept(name="x", kind="object", phrases=("x",), labels=("mark/ring",))


def metric(name, card=JUDGE, **options):
    return KINDS[name](KINDS[name].Config(**options), card)


def scored(subject, role="target", concept=A, style=(0.9, 0.1)):
    return Scored(Asked(concept, role, "p"), {"subject": np.array(subject), "style": np.array(style)})


def by_hand(probabilities, wanted, k):
    """Whether fewer than k classes come before the best of the wanted ones."""
    best = min(sum(1 for j, q in enumerate(probabilities) if q > probabilities[i] or (q == probabilities[i] and j < i)) for i in wanted)
    return best < k


def test_top_k_ties_and_large_k():
    p = np.array([0.3, 0.3, 0.4, 0.0])
    assert not in_top_k(p, [1], 2) and in_top_k(p, [0], 2) and in_top_k(p, [1], 3) and in_top_k(p, [3], 99)


@given(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]), min_size=4, max_size=9), st.sets(st.integers(0, 3), min_size=1), st.integers(1, 9))
def test_top_k_equals_counting(probabilities, wanted, k):
    assert in_top_k(np.array(probabilities), sorted(wanted), k) == by_hand(probabilities, wanted, k)


@given(st.lists(st.floats(0.01, 1), min_size=5, max_size=5), st.integers(1, 3))
def test_invariants(probabilities, k):
    """ESR-k + ACC-k = 1 on a target, PSR-k = ACC-k on a kept concept; ESR falls and PSR rises with k."""
    image, kept = scored(probabilities), scored(probabilities, "retained")
    assert metric("esr", k=k).value(image) + metric("acc", k=k).value(image) == 1
    assert metric("psr", k=k).value(kept) == metric("acc", k=k).value(kept)
    assert metric("esr", k=k).value(image) >= metric("esr", k=k + 1).value(image)
    assert metric("psr", k=k).value(kept) <= metric("psr", k=k + 1).value(kept)


def test_any_label_of_the_concept_counts():
    esr = metric("esr")
    assert esr.value(scored([0.1, 0.8, 0.1, 0, 0])) == 0.0  # b is a label of the concept, too
    assert esr.value(scored([0.1, 0.1, 0.8, 0, 0])) == 1.0


def test_the_concept_chooses_the_head():
    assert metric("esr").value(scored([1, 0, 0, 0, 0], concept=S, style=(0.2, 0.8))) == 0.0
    assert metric("esr").value(scored([1, 0, 0, 0, 0], concept=S, style=(0.8, 0.2))) == 1.0


def test_scope_direction_and_protocol():
    esr, psr, acc = metric("esr", k=3), metric("psr"), metric("acc")
    assert esr.applies(A, "target") and not esr.applies(A, "retained") and psr.applies(A, "retained") and not psr.applies(A, "target")
    assert acc.applies(A, "target") and acc.applies(A, "retained") and not acc.applies(STRANGER, "target")
    assert (acc.better("target"), acc.better("retained"), psr.better("retained"), esr.better("target")) == ("lower", "higher", "higher", "higher")
    assert esr.protocol == "esr-3@top3-of-5+2way/fake" and esr.unit == "rate" and esr.is_rate
    with pytest.raises(ValueError, match="k"):
        ErasingSuccessRate.Config(k=0)


@pytest.mark.parametrize("name", ["esr", "psr", "acc"])
def test_what_would_always_be_a_hit_is_refused(name):
    assert metric(name, k=4).id == f"{name}-4"
    with pytest.raises(UserInputError, match=r"-5: every label is among the first 5 of 5.*\n.*from 1 to 4"):
        metric(name, k=5)
    with pytest.raises(UserInputError, match="first 2 of 2"):
        metric(name, k=2, among=("subject/a", "subject/c"))


def test_a_concept_that_cannot_be_missed_has_no_row():
    """Three of five labels are the concept's or not: with two of its own, every top 4 has one."""
    assert metric("acc", k=3).applies(A, "target") and not metric("acc", k=4).applies(A, "target")
    assert metric("acc", k=4).applies(C, "target")
    assert metric("acc").applies(S, "target") and not metric("acc", k=2).applies(S, "target")


@pytest.mark.parametrize("broken", [[np.nan, 0.2, 0.3, 0.1, 0.1], [0, 0, 0, 0, 0], [np.inf, 0, 0, 0, 0], [1.2, -0.2, 0, 0, 0]])
def test_no_probabilities_are_a_failure_and_no_answer(broken):
    assert [metric(name).value(scored(broken)) for name in KINDS] == [None] * 4


def test_among_a_list_is_another_protocol():
    """The image is most of all b, which does not compete; of a, c and d it is most of all d."""
    image = scored([0.1, 0.5, 0.15, 0.25, 0], concept=C)
    three = ("subject/a", "subject/c", "subject/d")
    ten, wide = metric("acc", k=2, among=three), metric("acc", k=2)
    assert (ten.value(image), wide.value(image), metric("acc", among=three).value(image)) == (1.0, 0.0, 0.0)
    assert ten.arithmetic.startswith("top2-of-3way-") and len(ten.arithmetic) == len("top2-of-3way-") + 4
    assert ten.arithmetic == metric("acc", k=2, among=three[::-1]).arithmetic  # a set has no order
    assert ten.arithmetic != metric("acc", k=2, among=("subject/a", "subject/c", "subject/b")).arithmetic
    assert not metric("acc", among=("subject/a", "subject/d")).applies(C, "target")
    assert metric("acc", among=("subject/b", "subject/c")).value(scored([0.9, 0, 0.1, 0, 0])) == 0.0  # a is a label, but does not compete


def test_the_order_of_a_list_does_not_matter_even_where_probabilities_are_equal():
    image = scored([0.1, 0.1, 0.4, 0.4, 0], concept=C)
    assert metric("acc", among=("subject/d", "subject/c")).value(image) == metric("acc", among=("subject/c", "subject/d")).value(image) == 1.0


def test_among_a_named_set(monkeypatch):
    monkeypatch.setattr(class_labels, "load_label_set", {"two": ("subject/a", "subject/c")}.__getitem__)
    acc = metric("acc", among="two")
    assert acc.protocol == "acc-1@top1-of-two/fake" and acc.value(scored([0.2, 0.5, 0.1, 0.2, 0])) == 1.0


@pytest.mark.parametrize(
    ("among", "message"),
    [
        (("subject/a", "subject/cc"), "unknown label of judge 'fake' in `among` 'subject/cc'; did you mean 'subject/c'"),
        (("a", "c"), "unknown label"),
        (("subject/a", "style/s"), "labels of the heads style, subject"),
        (("subject/a",), "at least two labels"),
        (("subject/a", "subject/c", "subject/a"), "each once"),
        ((), "at least two labels"),
        ("no-such-set", "unknown label set 'no-such-set'"),
    ],
)
def test_wrong_sets(among, message):
    with pytest.raises(UserInputError, match=message):
        metric("esr", among=among)


def test_a_judge_whose_weights_are_not_here_leaves_its_labels_unchecked():
    far = metric("esr", UNKNOWN, k=5, among=("imagenet/0:tench", "imagenet/497:church"))
    assert far.id == "esr-5" and not far.applies(A, "target")
    with pytest.raises(UserInputError, match="unknown label"):
        metric("esr", UNKNOWN, among=("church", "tench"))


def test_options_are_strict():
    with pytest.raises(ValidationError):
        Accuracy.Config(amongst="x")
    assert Accuracy.Config(among=["subject/a", "subject/b"]).among == ("subject/a", "subject/b")


def test_distributions_are_renormalised():
    choices = Choices.of(("subject/a", "subject/c"), JUDGE)
    assert choices.distribution({"subject": np.array([0.1, 0.5, 0.3, 0.1, 0])}, "subject").tolist() == pytest.approx([0.25, 0.75])
    assert choices.distribution({"subject": np.array([0, 1.0, 0, 0, 0])}, "subject") is None


def test_nothing():
    nothing = metric("nothing")
    assert nothing.value(scored([0.1, 0.1, 0.1, 0, 0.7])) == 1.0 and nothing.value(scored([0.6, 0.1, 0, 0, 0.3])) == 0.0
    assert (nothing.better("target"), nothing.better("retained"), nothing.protocol) == ("lower", "lower", "nothing@top1/fake")
    assert nothing.applies(STRANGER, "retained")
    assert not metric("nothing", UNKNOWN).applies(A, "target")


@pytest.mark.parametrize("name", list(KINDS))
def test_presets_are_options_of_the_metric(name):
    presets = presets_of(name)
    assert next(iter(presets)) == "default" and all(p.note for p in presets.values())
    for preset in presets.values():
        config = KINDS[name].Config(**preset.options)
        assert preset.judge is None or preset.judge in JUDGES.names()
        if isinstance(getattr(config, "among", None), str):
            assert load_label_set(config.among)
    assert KINDS[name].reference and KINDS[name].failure_modes


@pytest.mark.parametrize("name", ["esr", "psr", "acc"])
def test_uces_ten_are_labels_of_its_judge(name):
    from torchvision.models import ResNet50_Weights

    names = ResNet50_Weights.IMAGENET1K_V2.meta["categories"]
    judge = JudgeCard("resnet50-v2", "classifier", "", "", "", "", {"imagenet": tuple(f"{i}:{n}" for i, n in enumerate(names))})
    uce = metric(name, judge, **presets_of(name)["uce"].options)
    assert uce.choices.indices["imagenet"].tolist() == [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]  # of Imagenette's classes
    assert uce.arithmetic == metric("acc", judge, **presets_of("acc")["uce"].options).arithmetic
    assert metric(name, judge, **presets_of(name)["kpop"].options).arithmetic == "top1-of-1000way"


def test_a_synonym_is_wrong_of_1000_and_right_of_ten():
    """ResNet-50's first answer to a cassette player is usually `cassette`."""
    p = np.zeros(1000)
    p[481], p[482], p[0] = 0.6, 0.3, 0.1
    names = [f"{i}:x" for i in range(1000)]
    names[482], names[0] = "482:cassette player", "0:tench"
    judge = JudgeCard("resnet50-v2", "classifier", "", "", "", "", {"imagenet": tuple(names)})
    player = Concept(name="cassette player", kind="object", phrases=("x",), labels=("imagenet/482:cassette player",))
    image = Scored(Asked(player, "target", "p"), {"imagenet": p})
    two = ("imagenet/482:cassette player", "imagenet/0:tench")
    assert (metric("esr", judge).value(image), metric("esr", judge, k=2).value(image), metric("esr", judge, among=two).value(image)) == (1, 0, 0)
