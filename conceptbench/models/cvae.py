"""The conditional variational autoencoder of Selective Amnesia's MNIST experiment (Heng and Soh 2023, appendix B.1)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for inside, outside in itertools.pairwise(widths):
        layers += [nn.Linear(inside, outside), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class CVAE(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A multilayer perceptron that codes an image and its class, and another that draws one from a code and a class.

    Args:
        size: pixels a side.
        channels: of the images.
        classes: how many; they come as one-hot rows beside pixels and codes.
        hidden: widths of the encoder's hidden layers; the decoder has them in reverse.
        latent: numbers in a code.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, size: int = 28, channels: int = 1, classes: int = 10, hidden: Sequence[int] = (512, 256), latent: int = 8) -> None:
        super().__init__()
        pixels = channels * size * size
        self.encoder = mlp([pixels + classes, *hidden, 2 * latent])
        self.decoder = mlp([latent + classes, *reversed(hidden), pixels])

    def forward(self, sample: Tensor, classes: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes images and draws them again.

        Args:
            sample: (N, C, H, W) in [0, 1].
            classes: (N, K) one-hot.
            noise: (N, latent) standard normal, of the reparameterisation.

        Returns:
            Logits of the pixels (N, C, H, W), mean and logarithm of the variance of the codes (N, latent).
        """
        mean, log_variance = self.encoder(torch.cat([sample.flatten(1), classes], 1)).chunk(2, 1)
        return self.decode(mean + (log_variance / 2).exp() * noise, classes), mean, log_variance

    def decode(self, code: Tensor, classes: Tensor) -> Tensor:
        """Logits of the pixels (N, C, H, W) for codes (N, latent) and one-hot classes (N, K)."""
        side = self.config.size
        return self.decoder(torch.cat([code, classes], 1)).view(-1, self.config.channels, side, side)  # type: ignore[no-any-return]


def negative_elbo(sample: Tensor, logits: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """-ELBO per example: binary cross entropy of all pixels plus KL(q(z | x, c) || N(0, I)), in nats (Kingma and Welling 2014, eq. 10).

    Args:
        sample: (N, C, H, W) in [0, 1].
        logits: (N, C, H, W).
        mean: (N, latent), of the codes.
        log_variance: (N, latent).

    Returns:
        (N,): upper bounds of -log p(x | c).
    """
    reconstruction = F.binary_cross_entropy_with_logits(logits, sample, reduction="none").flatten(1).sum(1)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
    return reconstruction + divergence
