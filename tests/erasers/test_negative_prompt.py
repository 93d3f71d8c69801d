from __future__ import annotations

import pytest
from erasing import KEPT, TARGET, PlainContext, assert_base_untouched, request, snapshot

from conceptbench.erasers.negative_prompt import NegativePrompt, NegativePromptConfig
from conceptbench.models.conditions import Condition


@pytest.mark.parametrize(
    ("options", "text"),
    [({}, "ab, ef"), ({"separator": " and "}, "ab and ef"), ({"of": "name"}, "first, second"), ({"text": "zz"}, "zz")],
)
def test_the_text_takes_the_empty_prompts_place(sd1, options, text):
    before = snapshot(sd1)
    targets = TARGET.model_copy(update={"name": "first"}), KEPT.model_copy(update={"name": "second"})
    erasure = NegativePrompt().erase(sd1, request(*targets, retained=()), NegativePromptConfig(**options), PlainContext())
    assert not erasure.changes
    with erasure.applied(sd1):
        assert sd1.runtime.conditions([Condition("a"), Condition("b", "c")]) == [Condition("a", text), Condition("b", f"{text}, c")]
    assert_base_untouched(sd1, before)
