"""Every preset of every eraser: it can be resolved, and nothing that it trains on is an evaluation prompt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conceptbench.core.manifests import load_concepts, load_prompts
from conceptbench.core.registry import ERASERS
from conceptbench.engine.lineup import presets_of, resolve
from conceptbench.models.families import KINDS

SHIPPED = ("negative-prompt", "uce", "esd", "fmn", "sa", "kpop", "gcirs", "sepme", "ca", "sdd", "sld")
PRESETS = [(name, preset) for name in SHIPPED for preset in presets_of(name)]


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from texts_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from texts_in(part)


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_it_can_be_resolved_with_every_variant_and_kind(name, preset):
    keys = set(presets_of(name)[preset])
    variants = ERASERS.load(name).variants
    assert "source" in keys and keys <= {"source", "all", "kinds", "variants", *KINDS}
    assert set(presets_of(name)[preset].get("variants", {})) <= set(variants)
    assert set(presets_of(name)[preset].get("kinds", {})) <= {"identity", "object", "style", "explicit"}
    for variant in variants:
        label = f"{name}-{variant}" if variant else name
        assert resolve(f"{label}:{preset}", family="sd1", tier="mini").preset == preset


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_no_text_in_it_is_an_evaluation_prompt(name, preset):
    evaluated = {p.text for p in load_prompts("mini")}
    options = {k: v for k, v in presets_of(name)[preset].items() if k != "source"}
    assert not evaluated & set(texts_in(options))


def test_no_training_text_of_a_concept_is_an_evaluation_prompt():
    evaluated = {p.text for p in load_prompts("mini")}
    assert not evaluated & {t for c in load_concepts("mini").values() for t in c.texts()}


def test_every_mini_preset_is_there():
    assert {n for n in SHIPPED if "mini" in presets_of(n)} == set(SHIPPED) - {"negative-prompt"}
    assert all("paper" in presets_of(n) for n in SHIPPED if n != "negative-prompt")


def test_options_by_kind_of_target():
    concepts = load_concepts("mini")
    fmn = resolve("fmn", family="sd1", tier="mini")
    assert (fmn.config.eos, fmn.on([concepts["mosaic"]]).config.eos, fmn.on([concepts["church"]]).config.eos) == ("first", "padding", "first")
    assert fmn.on([concepts["mosaic"], concepts["sketch"]]).config.eos == "padding"
    assert fmn.on([concepts["mosaic"], concepts["church"]]).config.eos == "first"  # of no one kind
    assert resolve("fmn:mini,eos=none", family="sd1", tier="mini").on([concepts["mosaic"]]).config.eos == "none"  # the user's own wins
    assert resolve("fmn-full:mini", family="sd1", tier="mini").on([concepts["mosaic"]]).config.lr == 5e-5  # and a variant's
