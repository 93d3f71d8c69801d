"""Every installed metric has a card and presets that can be used."""

from __future__ import annotations

import pytest

from conceptbench.core.protocols import names_of, presets_of, spelled_out
from conceptbench.core.registry import JUDGES, METRICS
from conceptbench.core.schemas import MetricSpec

METRIC_NAMES = [n for n in METRICS.names() if METRICS.origin(n).startswith("conceptbench.")]
NEED_CANDIDATES = {"zero_shot", "zero_shot_margin", "zero_shot_prob", "zero_shot_auc"}


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_card_and_presets(name):
    from conceptbench.engine.metric_card import metric_card

    kind = METRICS.load(name)
    card = metric_card(name, kind, METRICS.origin(name))
    assert card.startswith(f"{name}: {kind.summary}") and "Definition" in card and "Protocols" in card and "Needs" in card
    assert kind.__doc__ and kind.reference is not None
    for preset in presets_of(name):
        spec = spelled_out(MetricSpec(metric=name, preset=preset))[0]
        assert spec.judge is None or spec.judge in JUDGES.names(), (preset, spec.judge)
        assert bool(spec.judge is None) or kind.role, (preset, "asks a judge, and the metric has no role")
        if name not in NEED_CANDIDATES or "candidates" in spec.options:
            kind.Config.model_validate(spec.options)
    if presets_of(name):
        assert next(iter(presets_of(name))) == "default"


def test_every_metric_of_the_papers_is_installed():
    wanted = {"m_score", "clip_score", "esr", "psr", "acc", "ner", "detections", "fid", "kid", "precision", "recall", "lpips", "no_face", "gcds"}
    assert wanted | {"class_probability", "entropy", "attention_map", "harmonic", "sigma", "normalised", "zero_shot", "zero_shot_auc"} <= set(METRIC_NAMES)


def test_names_of_a_protocol():
    assert names_of("esr-1@top1-of-10way/resnet50-v2") == ("esr-1", "esr-1/resnet50-v2")
    assert names_of("cost-seconds@one-erasure") == ("cost-seconds",)


def test_an_unknown_preset_suggests():
    from conceptbench.core.errors import UserInputError

    with pytest.raises(UserInputError, match="did you mean 'kpop'"):
        spelled_out(MetricSpec(metric="esr", preset="kpopp"))
    with pytest.raises(UserInputError, match="stands in `options` and in `each`"):
        spelled_out(MetricSpec(metric="esr", options={"k": 1}, each={"k": [1]}))
    with pytest.raises(UserInputError, match="no value"):
        spelled_out(MetricSpec(metric="esr", each={"k": []}))
