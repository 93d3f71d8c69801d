from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conceptbench.core.metric import JudgeCard, Scored
from conceptbench.core.registry import METRICS
from conceptbench.core.schemas import Concept
from conceptbench.metrics.classification import in_top_k
from conceptbench.metrics.clip_score import scaled
from conceptbench.metrics.detection import any_above

LABELS = {"subject": ("a", "b", "c", "nothing"), "style": ("photo", "s")}
CLASSIFIER = JudgeCard("fake", "classifier", "0" * 64, "", "", "", LABELS)
DETECTOR = JudgeCard("fake", "detector", "0" * 64, "", "", "", {"mark": ("ring", "cross"), "face": ("face",)})
CLIP = JudgeCard("fake", "image-text", "0" * 64, "", "", "", {}, needs_text=True)
A = Concept(name="a", kind="object", phrases=("an a",), labels=("subject/a", "subject/b"))
S = Concept(name="s", kind="style", phrases=("s",), labels=("style/s",))
MARKS = Concept(name="marks", kind="explicit", phrases=("x",), labels=("mark/ring", "mark/cross"))


def metric(name, card=CLASSIFIER, **options):
    kind = METRICS.load(name)
    return kind(kind.Config(**options), card)


def scored(subject, role="target", concept=A, style=(0.9, 0.1)):
    return Scored(concept, role, "p", {"subject": np.array(subject), "style": np.array(style)})


def test_top_k_ties_and_large_k():
    p = np.array([0.3, 0.3, 0.4, 0.0])
    assert not in_top_k(p, [1], 2) and in_top_k(p, [0], 2) and in_top_k(p, [1], 3) and in_top_k(p, [3], 99)


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.integers(1, 3))
def test_invariants(probabilities, k):
    """ESR-k + ACC-k = 1 on a target; ESR falls and PSR rises with k."""
    image, kept = scored(probabilities), scored(probabilities, "retained")
    assert metric("esr", k=k).value(image) + metric("acc", k=k).value(image) == 1
    assert metric("esr", k=k).value(image) >= metric("esr", k=k + 1).value(image)
    assert metric("psr", k=k).value(kept) <= metric("psr", k=k + 1).value(kept)


def test_any_label_of_the_concept_counts():
    esr = metric("esr")
    assert esr.value(scored([0.1, 0.8, 0.1, 0])) == 0.0  # b is a label of the concept, too
    assert esr.value(scored([0.1, 0.1, 0.8, 0])) == 1.0


def test_the_concept_chooses_the_head():
    assert metric("esr").value(scored([1, 0, 0, 0], concept=S, style=(0.2, 0.8))) == 0.0


def test_scope_direction_and_protocol():
    esr, psr, acc = metric("esr", k=5), metric("psr"), metric("acc")
    assert esr.applies(A, "target") and not esr.applies(A, "retained") and psr.applies(A, "retained") and not psr.applies(A, "target")
    assert not esr.applies(MARKS, "target")  # no head of the classifier knows it
    assert (acc.better("target"), acc.better("retained"), psr.better("retained")) == ("lower", "higher", "higher")
    assert esr.protocol == "esr-5@top5-of-4+2way/fake"
    with pytest.raises(ValueError, match="k"):
        METRICS.load("esr").Config(k=0)


def test_nothing():
    nothing = metric("nothing")
    assert nothing.value(scored([0.1, 0.1, 0.1, 0.7])) == 1.0 and nothing.value(scored([0.7, 0.1, 0.1, 0.1])) == 0.0
    assert nothing.better("target") == "lower"


def test_a_threshold_is_strict_and_labels_are_chosen():
    detections = np.array([[0.5, 0, 0, 0, 1, 1], [0.9, 2, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]])
    assert not any_above(detections, [0, 1], 0.5) and any_above(detections, [0, 1], 0.49) and any_above(detections, [2], 0.5)
    assert not any_above(np.zeros((3, 6)), [0], 0.0)  # no detection at all


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2)), min_size=1, max_size=6), st.floats(0, 0.5), st.floats(0, 0.49))
def test_exposure_falls_with_the_threshold(found, low, step):
    rows = np.array([[score, label, 0, 0, 1, 1] for score, label in found])
    assert any_above(rows, [0, 1], low) >= any_above(rows, [0, 1], low + step)


def test_exposure_rate_asks_only_for_the_concepts_labels():
    ner = metric("ner", DETECTOR, threshold=0.3)
    face = Scored(MARKS, "target", "p", {"detections": np.array([[0.9, 2, 0, 0, 1, 1]])})
    ring = Scored(MARKS, "target", "p", {"detections": np.array([[0.4, 0, 0, 0, 1, 1]])})
    assert (ner.value(face), ner.value(ring), ner.id, ner.better("target")) == (0.0, 1.0, "ner-0.3", "lower")
    assert not ner.applies(MARKS, "retained") and not ner.applies(A, "target")


def test_clip_scales():
    assert (scaled(0.31, "x100"), scaled(-0.2, "cosine"), scaled(-0.2, "w2.5"), scaled(0.4, "w2.5")) == (31.0, -0.2, 0.0, 1.0)


class FixedEncoders(torch.nn.Module):
    """A fixed random projection behind the interface that torchmetrics asks for."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.image, self.text = torch.randn(3 * 8 * 8, 16, generator=generator), torch.randn(6, 16, generator=generator)
        self.config = type("Config", (), {"text_config": type("T", (), {"max_position_embeddings": 6})})

    @property
    def device(self):
        return torch.device("cpu")

    def get_image_features(self, pixel_values):
        return pixel_values.flatten(1) @ self.image

    def get_text_features(self, input_ids, attention_mask=None):
        return input_ids.float() @ self.text


def processor(text=None, images=None, return_tensors=None, padding=None, **_):
    if text is not None:
        ids = torch.tensor([[(ord(c) % 7) + 1 for c in t.ljust(6)[:6]] for t in text])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {"pixel_values": torch.stack([i.float() / 255 for i in images])}


def test_clip_score_equals_torchmetrics():
    from torchmetrics.multimodal.clip_score import CLIPScore

    encoders = FixedEncoders()
    images = torch.randint(0, 256, (7, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    texts = [f"text {i}" for i in range(7)]
    theirs = CLIPScore(model_name_or_path=lambda: (encoders, lambda *a, **k: processor(*a, **k)))
    expected = float(theirs(images, texts))
    a = torch.nn.functional.normalize(encoders.get_image_features(processor(images=list(images))["pixel_values"]), dim=-1)
    b = torch.nn.functional.normalize(encoders.get_text_features(processor(text=texts)["input_ids"]), dim=-1)
    score = metric("clip_score", CLIP)
    values = [score.value(Scored(A, "retained", t, {"cosine": c})) for t, c in zip(texts, (a * b).sum(-1).numpy(), strict=True)]
    estimate = score.estimate(values, texts, 7, "retained")
    assert max(estimate.value, 0) == pytest.approx(expected, abs=1e-4)
    assert estimate.low < estimate.value < estimate.high and estimate.kind == "cluster-bootstrap"


def test_a_detectors_labels_are_numbered_through_its_heads():
    face = Concept(name="faces", kind="explicit", phrases=("x",), labels=("face/face",))
    found = np.array([[0.9, 2, 0, 0, 1, 1], [0.0, 0, 0, 0, 0, 0]])  # label 2 is the face, behind two marks
    assert metric("ner", DETECTOR).value(Scored(face, "target", "p", {"detections": found})) == 1.0
    assert metric("ner", DETECTOR).value(Scored(MARKS, "target", "p", {"detections": found})) == 0.0
