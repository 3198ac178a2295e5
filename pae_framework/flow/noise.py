"""Noise of samples: each has its own stream, so that its company changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pae_framework.config import LatentShape
from pae_framework.seeding import derive_seed


class SampleNoise:
    """Standard normal noise of some samples, drawn one latent a sample at a time.

    The first draw is what a sample starts from, the others are the noise of its steps: draw k of
    sample i is a function of (seed, i, k) and the latent's shape alone.

    Args:
        indices: sample numbers (M,).
        seed: seed of the sample set.
        latent: shape of one latent.
    """

    def __init__(self, indices: Tensor | Sequence[int], seed: int, latent: LatentShape):
        # torch's CPU generator keeps only 32 bits of a seed. A hash of (seed, i) would make two of
        # 50 000 samples share their noise once in four seeds; counting up from a hash never does.
        first = derive_seed(seed, "noise")
        self._streams = [
            torch.Generator().manual_seed((first + int(index)) % 2**32) for index in indices
        ]
        self._shape = (latent.channels, latent.side, latent.side)

    def draw(self) -> Tensor:
        """The next noise (M, C, h, w) float32, on the CPU."""
        if not self._streams:
            return torch.empty(0, *self._shape)
        return torch.stack([torch.randn(self._shape, generator=own) for own in self._streams])


def initial_noise(indices: Tensor | Sequence[int], seed: int, latent: LatentShape) -> Tensor:
    """Standard normal noise (M, C, h, w) on the CPU; row i is a function of (seed, indices[i])."""
    return SampleNoise(indices, seed, latent).draw()
