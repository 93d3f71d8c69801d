from __future__ import annotations

import classy
import numpy as np
import pytest
import torch
from erasing import Images, assert_base_untouched, assert_falls, assert_seeded, request, snapshot, stopped_and_resumed

from conceptbench.classes import retrain
from conceptbench.classes.datasets import load_images
from conceptbench.classes.retrain import Retrain, RetrainConfig
from conceptbench.core.errors import UserInputError
from conceptbench.core.manifests import load_concepts
from conceptbench.engine.lineup import resolve

DIGITS = load_concepts("digits")
CLASSES = tuple("0123456789")


@pytest.fixture(params=["cvae", "ddpm"])
def base(request, monkeypatch):
    """A tiny network in the recipe's place."""
    pipelines = {"cvae": classy.cvae, "ddpm": classy.ddpm}
    monkeypatch.setattr(retrain, "seeded_pipeline", lambda family, _recipe, classes, seed: pipelines[family](classes=classes, seed=seed))
    return classy.base(request.param, classes=CLASSES)


def erase(base, context, *targets, **options):
    config = RetrainConfig(**{"model": base.info.family, "steps": 6, **options})
    return Retrain().erase(base, request(*(DIGITS[t] for t in targets), retained=()), config, context)


def test_it_never_sees_the_targets(base, monkeypatch):
    seen = []
    monkeypatch.setattr(retrain, "training_loss", lambda b, data, recipe: seen.append(data) or _loss_of(b))
    erase(base, Images(), "digit 0", "digit 7")
    assert set(seen[0].labels) == set(range(10)) - {0, 7} and len(seen[0]) == np.isin(load_images("digits").labels, [0, 7], invert=True).sum()


def _loss_of(base):
    return lambda rows, generator: sum(p.square().mean() for p in base.network.parameters())


def test_it_forgets_the_old_weights(base):
    """Its own weights are the average from a random start: those of the base do not matter."""
    before = snapshot(base)
    first, context = assert_seeded(lambda context: erase(base, context, "digit 0"))
    assert_base_untouched(base, before)
    with torch.no_grad():
        for p in base.network.parameters():
            p.add_(1.0)
    again = erase(base, Images(1), "digit 0")
    moved = snapshot(base)
    for name, change in first.changes[0].tensors.items():
        assert torch.allclose(before[name] + change, moved[name] + again.changes[0].tensors[name], atol=1e-5), name
    assert first.changes[0].component == base.component and len(context.losses) == 6


def test_loss_falls_and_it_goes_on(base):
    context = Images()
    whole = erase(base, context, "digit 0", steps=40)
    assert_falls(context.losses, 10)
    resumed, _ = stopped_and_resumed(lambda context: erase(base, context, "digit 0", steps=40), 7)
    assert resumed.weights_hash() == whole.weights_hash()


def test_refused(base):
    other = {"cvae": "ddpm", "ddpm": "cvae"}[base.info.family]
    with pytest.raises(UserInputError, match=f"is a {base.info.family}, not a {other}"):
        Retrain.check(base, request(DIGITS["digit 0"]), RetrainConfig(model=other))
    with pytest.raises(UserInputError, match="unknown class of tiny"):
        Retrain.check(base, request(), RetrainConfig(model=base.info.family))
    with pytest.raises(UserInputError, match="retrain cannot erase from family 'sd1'"):
        resolve("retrain", family="sd1", tier="mini")
    few = classy.base(base.info.family)
    with pytest.raises(UserInputError, match="digits has other classes than tiny"):
        erase(few, Images(), "digit 0")


def test_load_is_the_recipes():
    load = Retrain.load(RetrainConfig(), 1)
    assert load.trained == RetrainConfig().recipe.steps * RetrainConfig().recipe.batch and Retrain.load(RetrainConfig(steps=3), 1).trained == 3 * load.batch
    assert resolve("retrain", family="ddpm", tier="paper").config == RetrainConfig(model="ddpm", data="cifar10")
