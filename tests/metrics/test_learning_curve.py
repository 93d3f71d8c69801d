from __future__ import annotations

import pytest
from pydantic import ValidationError

from conceptbench.core.judge import JudgeCard
from conceptbench.core.whole_metric import Edited
from conceptbench.metrics.learning_curve import LearningCurve

CLIP = JudgeCard("clip", "image-text", "", "", "", "", {})
CURVE = [
    {"step": 0, "loss": 3.0, "cos(c_e, x_e)": 0.30, "cos(prompt, 'a person')": 0.0},
    {"step": 1, "loss": 2.0},  # not a look
    {"step": 2, "loss": 1.0, "cos(c_e, x_e)": 0.25, "cos(prompt, 'a person')": None},  # not finite
    {"step": 4, "loss": 1.0, "cos(c_e, x_e)": 0.20, "cos(prompt, 'a person')": 0.5},
]


def curve(**options):
    return LearningCurve(LearningCurve.Config(**options), CLIP)


@pytest.mark.parametrize(("at", "value"), [(0, 0.30), (0.4, 0.25), (0.5, 0.25), (0.8, 0.20), (1, 0.20)])
def test_the_look_that_is_nearest_to_the_share(at, value):
    assert curve(at=at).measure(Edited({}, {}, {}, CURVE)) == value


def test_a_learned_prompt_and_a_text():
    metric = curve(of="prompt", text="a person", at=0.5)
    assert metric.id == "learning_curve-prompt-a-person-0.5" and metric.protocol == "learning_curve-prompt-a-person-0.5@cosine/clip"
    assert [curve(of="prompt", text="a person", at=at).measure(Edited({}, {}, {}, CURVE)) for at in (0, 1)] == [0.0, 0.5]


def test_no_curve_no_value():
    assert curve(of="c_n, x_n").measure(Edited({}, {}, {}, CURVE)) is None and curve().measure(Edited({}, {}, {})) is None


def test_direction_and_unit():
    assert [curve(of=of).better() for of in ("c_e, x_e", "c_e, x_n", "c_n, x_n")] == ["lower", "neither", "higher"]
    assert curve().unit == "cosine" and curve().id == "learning_curve-c_e-x_e-1"


@pytest.mark.parametrize("options", [{"of": "prompt"}, {"text": "a person"}, {"at": 1.1}, {"of": "c_n, x_e"}])
def test_options_that_make_no_sense(options):
    with pytest.raises(ValidationError):
        curve(**options)
