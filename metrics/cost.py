"""What an erasure costs: time, memory, evaluations of the network, bytes."""

from __future__ import annotations

from typing import Literal

from conceptbench.core.judge import JudgeCard
from conceptbench.core.metric import Better
from conceptbench.core.schemas import Strict
from conceptbench.core.whole_metric import Edited, ErasureMetric

UNITS = {"seconds": "seconds", "peak_memory_mb": "MB", "network_evaluations": "evaluations", "size_bytes": "bytes"}
TIMED = ("seconds", "peak_memory_mb")
"""What another run on the same machine may measure differently."""


class Cost(ErasureMetric):
    """One of the costs that the harness measured while the eraser ran.

    ``seconds``: wall clock of the whole erasure, its reference images included. ``peak_memory_mb``: of the process, or of
    the device where there is one, in MiB. ``network_evaluations``: forwards of the denoiser by rows; reference images come
    from the store and are not counted. ``size_bytes``: of the changed tensors.
    """

    name, summary = "cost", "what the erasure took: seconds, memory, network evaluations or bytes"

    class Config(Strict):
        """Options: of, which cost."""

        of: Literal["seconds", "peak_memory_mb", "network_evaluations", "size_bytes"] = "seconds"

    config: Cost.Config

    def __init__(self, config: Cost.Config, judge: JudgeCard) -> None:
        super().__init__(config, judge)
        self.unit, self.timed = UNITS[config.of], config.of in TIMED

    @property
    def id(self) -> str:
        """``cost-seconds``."""
        return f"cost-{self.config.of}"

    @property
    def arithmetic(self) -> str:
        """``one-erasure``: of making it once, not a mean."""
        return "one-erasure"

    def better(self) -> Better:
        """Lower."""
        return "lower"

    def measure(self, erasure: Edited) -> float | None:
        """The cost, or None where it was not measured: a checkpoint made elsewhere."""
        cost = erasure.cost.get(self.config.of)
        return None if cost is None else float(cost)
