from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conceptbench.core.judge import JudgeCard
from conceptbench.core.metric import Asked, Scored
from conceptbench.core.protocols import presets_of
from conceptbench.core.results import Estimate
from conceptbench.core.schemas import Concept
from conceptbench.metrics.clip_score import CLIPAccuracy, CLIPScore, scaled

CLIP = JudgeCard("fake", "image-text", "0" * 64, "", "", "", {})
GOGH = Concept(name="van-gogh", kind="style", phrases=("Van Gogh", "Vincent"), anchor="a painting")
PLAIN = Concept(name="plain", kind="object", phrases=("a cup",))
ASKED = Asked(GOGH, "target", "p", "a tree by Van Gogh", "a tree")


def score(**options):
    return CLIPScore(CLIPScore.Config(**options), CLIP)


def accuracy(**options):
    return CLIPAccuracy(CLIPAccuracy.Config(**options), CLIP)


def image(*cosines, asked=ASKED):
    return Scored(asked, {}, np.array(cosines, np.float32))


def test_scales():
    assert (scaled(0.31, "x100"), scaled(-0.2, "x100"), scaled(-0.2, "cosine"), scaled(-0.2, "w2.5"), scaled(0.4, "w2.5")) == (31.0, -20.0, -0.2, 0.0, 1.0)


def test_the_scales_of_one_cosine_are_the_papers_numbers():
    """.308 of Forget-Me-Not, 30.8 of KPOP and .77 of Concept Ablation are one cosine."""
    found = [score(scale=s).value(image(0.308)) for s in ("cosine", "x100", "w2.5")]
    assert found == pytest.approx([0.308, 30.8, 0.77], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "texts", "name", "arithmetic"),
    [
        ({}, ("a tree by Van Gogh",), "clip_score", "x100"),
        ({"text": "subject", "scale": "w2.5"}, ("Van Gogh",), "clip_score-subject", "w2.5"),
        ({"text": "content", "scale": "cosine"}, ("a tree",), "clip_score-content", "cosine"),
        (
            {"text": "subject", "prefix": "A photo depicts ", "suffix": " style"},
            ("A photo depicts Van Gogh style",),
            "clip_score-subject",
            "x100-'A photo depicts {} style'",
        ),
    ],
)
def test_what_an_image_is_compared_with(options, texts, name, arithmetic):
    metric = score(**options)
    assert (metric.texts(ASKED), metric.id, metric.arithmetic) == (texts, name, arithmetic)
    assert metric.protocol == f"{name}@{arithmetic}/fake" and metric.counts(image(0.3)) and metric.applies(PLAIN, "retained")


def test_every_choice_is_in_the_protocol():
    choices = [{"scale": s, "text": t, **w} for s in ("x100", "w2.5") for t in ("prompt", "subject") for w in ({}, {"prefix": "a "}, {"suffix": " a"})]
    assert len({score(**c).protocol for c in choices}) == len(choices)


@pytest.mark.parametrize("content", ["", " "])
def test_prompts_without_content_do_not_count(content):
    asked = Asked(GOGH, "target", "p", "Van Gogh", content)
    metric = score(text="content", prefix="A photo depicts ")
    assert metric.texts(asked) == () and not metric.counts(Scored(asked, {}))
    assert score().counts(Scored(Asked(GOGH, "target", "p", ""), {}, np.zeros(1, np.float32)))  # an empty prompt is a prompt


def test_directions():
    assert [score().better(r) for r in ("target", "retained")] == ["lower", "higher"]
    assert [score(text="subject").better(r) for r in ("target", "retained")] == ["lower", "higher"]
    assert [score(text="content").better(r) for r in ("target", "retained")] == ["higher", "higher"]
    assert [accuracy().better(r) for r in ("target", "retained")] == ["lower", "higher"]
    assert [accuracy(of="error").better(r) for r in ("target", "retained")] == ["higher", "lower"]


def test_what_is_no_number_failed():
    assert score().value(image(np.nan)) is None and score(scale="w2.5").value(image(np.nan)) is None
    assert accuracy().value(image(np.nan, 0.1)) is None and accuracy(of="error").value(image(0.1, np.nan)) is None


# -- parity ----------------------------------------------------------------------------------------------------------
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
    return {"pixel_values": torch.stack([i.float() / 255 - 0.5 for i in images])}


@pytest.mark.parametrize("sign", [1, -1])
def test_clip_score_equals_torchmetrics(sign):
    from torchmetrics.multimodal.clip_score import CLIPScore as Theirs

    encoders = FixedEncoders()
    encoders.text *= sign
    images = torch.randint(0, 256, (7, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    texts = [f"text {i}" for i in range(7)]
    theirs = float(Theirs(model_name_or_path=lambda: (encoders, lambda *a, **k: processor(*a, **k)))(images, texts))
    a = torch.nn.functional.normalize(encoders.get_image_features(processor(images=list(images))["pixel_values"]), dim=-1)
    b = torch.nn.functional.normalize(encoders.get_text_features(processor(text=texts)["input_ids"]), dim=-1)
    values = [score().value(image(c)) for c in (a * b).sum(-1).numpy()]
    estimate = Estimate.of(values, texts, planned=7, rate=False, unit="score", better="higher")
    assert min(values) < 0 < max(values) and abs(estimate.value) > 0.5  # so that a clamp of each value would be seen
    assert max(estimate.value, 0) == pytest.approx(theirs, abs=1e-4)  # the clamp is on their mean
    assert estimate.low < estimate.value < estimate.high and estimate.kind == "cluster-bootstrap"


# -- CLIP accuracy ---------------------------------------------------------------------------------------------------
def test_accuracy_needs_the_concept_to_be_nearer():
    assert [accuracy().value(image(*c)) for c in ((0.3, 0.2), (0.2, 0.3), (0.25, 0.25))] == [1.0, 0.0, 0.0]
    assert accuracy().is_rate and accuracy().id == "clip_accuracy" and accuracy(of="error").id == "clip_error"


@given(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32))
def test_error_is_one_minus_accuracy(a, b):
    assert accuracy().value(image(a, b)) + accuracy(of="error").value(image(a, b)) == 1


@pytest.mark.parametrize(
    ("options", "concept", "texts"),
    [
        ({}, GOGH, ("Van Gogh", "a painting")),
        ({}, PLAIN, ("a cup", "")),  # no anchor: the empty text
        ({"anchor": ""}, GOGH, ("Van Gogh", "")),
        ({"anchor": "", "template": "a photo of {}"}, GOGH, ("a photo of Van Gogh", "")),
        ({"anchor": "", "anchor_template": "a photo{}"}, GOGH, ("Van Gogh", "a photo")),
        ({"template": "a photo of {}"}, GOGH, ("a photo of Van Gogh", "a photo of a painting")),
        ({"template": "{} style", "anchor_template": "{}"}, GOGH, ("Van Gogh style", "a painting")),
    ],
)
def test_the_two_texts(options, concept, texts):
    assert accuracy(**options).texts(Asked(concept, "target", "p", "x")) == texts


def test_the_protocol_of_accuracy():
    assert accuracy().protocol == "clip_accuracy@'{}'>'ANCHOR'/fake"
    assert accuracy(anchor="", of="error").protocol == "clip_error@'{}'<=''/fake"
    assert accuracy(template="a {}", anchor="b").arithmetic == "'a {}'>'a b'"


@pytest.mark.parametrize("options", [{"template": "a photo"}, {"template": "{} and {}"}, {"anchor_template": "x"}])
def test_a_template_has_one_slot(options):
    with pytest.raises(ValueError, match="needs exactly one"):
        accuracy(**options)


# -- presets ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [CLIPScore, CLIPAccuracy])
def test_presets(kind):
    presets = presets_of(kind.name)
    made = {name: kind(kind.Config(**p.options), CLIP) for name, p in presets.items()}
    assert next(iter(presets)) == "default" and all(p.note.endswith(".") for p in presets.values())
    assert kind.reference and kind.failure_modes
    if kind is CLIPAccuracy:
        assert made["spm"].id == "clip_error" and made["spm"].texts(ASKED) == ("Van Gogh", "")
        assert made["ca-style"].texts(ASKED) == ("A photo depicts Van Gogh style", "A photo depicts painting")
        assert made["ca"].texts(ASKED) == ("A photo depicts Van Gogh", "A photo depicts a painting")
        return
    assert [made[n].texts(ASKED)[0] for n in ("kpop", "kpop-artist", "kpop-content")] == ["a tree by Van Gogh", "Van Gogh", "a tree"]
    assert made["ca-style"].texts(ASKED) == ("A photo depicts Van Gogh style",) and made["spm"].texts(ASKED) == ("Van Gogh",)
    assert presets["kpop"].judge == "openai-b32-kpop" and presets["uce"].judge == "openai-b32" and presets["fmn"].judge is None
    assert {n: made[n].value(image(-0.2)) for n in ("fmn", "kpop", "spm")} == pytest.approx({"fmn": -0.2, "kpop": -20, "spm": 0})
