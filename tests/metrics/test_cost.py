from __future__ import annotations

import pytest
from pydantic import ValidationError

from conceptbench.core.judge import JudgeCard
from conceptbench.core.whole_metric import Edited
from conceptbench.metrics.cost import TIMED, UNITS, Cost

NOBODY = JudgeCard("", "features", "", "", "", "", {})
MEASURED = {"seconds": 12.5, "peak_memory_mb": 900.0, "network_evaluations": 640.0, "size_bytes": 4096.0}


@pytest.mark.parametrize("of", UNITS)
def test_each_cost(of):
    cost = Cost(Cost.Config(of=of), NOBODY)
    assert cost.measure(Edited({}, {}, MEASURED)) == MEASURED[of]
    assert (cost.id, cost.protocol, cost.better()) == (f"cost-{of}", f"cost-{of}@one-erasure", "lower")
    assert cost.unit == {"seconds": "seconds", "peak_memory_mb": "MB", "network_evaluations": "evaluations", "size_bytes": "bytes"}[of]
    assert cost.timed == (of in ("seconds", "peak_memory_mb")) == (of in TIMED)


@pytest.mark.parametrize("measured", [{}, {"seconds": None}])
def test_what_was_not_measured_is_undefined_and_not_zero(measured):
    assert Cost(Cost.Config(), NOBODY).measure(Edited({}, {}, measured)) is None


def test_one_instance_says_nothing_of_another():
    timed, counted = Cost(Cost.Config(), NOBODY), Cost(Cost.Config(of="size_bytes"), NOBODY)
    assert timed.timed and not counted.timed and (timed.unit, counted.unit) == ("seconds", "bytes")


def test_a_cost_that_nobody_measures():
    with pytest.raises(ValidationError, match="seconds"):
        Cost.Config(of="minutes")
