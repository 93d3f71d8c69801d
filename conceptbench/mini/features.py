"""The mini tier's feature extractor for FID, KID, precision and recall."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray

from conceptbench.core.judge import Outputs
from conceptbench.mini.judges import ROWS, MiniClassifier, to_input
from conceptbench.models.rows import in_blocks


class MiniFeatures:
    """The classifier's last feature map, averaged over the picture: what Inception's pooled features are to ImageNet."""

    def __init__(self) -> None:
        classifier = MiniClassifier()
        self.network = classifier.network
        preprocessing = f"{classifier.card.preprocessing}; last stage, mean over positions"
        self.card = dataclasses.replace(classifier.card, id="mini-features", role="features", labels={}, preprocessing=preprocessing)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """``features`` (N, 192) float32, not negative."""
        return {"features": in_blocks(lambda x: self.network(x)["features"], ROWS, to_input(images)).numpy()}
