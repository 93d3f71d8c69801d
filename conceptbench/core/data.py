"""Where data lies that does not ship: sets of images, prompts of others, and models that were trained on them."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder(given: str | Path | None = None) -> Path:
    """The folder of data sets and of models trained on them: the argument, ``$CONCEPTBENCH_DATA``, or ``~/.cache/conceptbench/data``."""
    named = given or os.environ.get("CONCEPTBENCH_DATA")
    return Path(named) if named else Path.home() / ".cache" / "conceptbench" / "data"
