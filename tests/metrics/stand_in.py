"""A network of a few features in place of Inception, and files for it."""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import Tensor

from pae_framework.metrics.features import InceptionFeatures, collect

PUBLISHED = "6726825d" + "0" * 56


class ColorNetwork:
    """Pooled: the mean colors, 0 to 1. Spatial: the first pixel's red and green. Three classes.

    It counts the images that it sees.
    """

    widths = (3, 2)

    def __init__(self, sha256: str = PUBLISHED):
        self.sha256 = sha256
        self.seen = 0
        self.largest_batch = 0

    def __call__(self, images: Tensor) -> InceptionFeatures:
        assert images.dtype == torch.uint8
        assert images.shape[1] == 3
        self.seen += len(images)
        self.largest_batch = max(self.largest_batch, len(images))
        floats = images.float() / 255
        return InceptionFeatures(floats.mean((2, 3)), floats[:, :2, 0, 0])

    def logits(self, pool: Tensor) -> Tensor:
        return 1000 * pool


def colors(count: int, seed: int = 0, side: int = 4, low: int = 0, high: int = 256) -> np.ndarray:
    """Images (N, side, side, 3) uint8 of one color each."""
    random = np.random.default_rng(seed)
    flat = random.integers(low, high, (count, 1, 1, 3), np.uint8)
    return flat.repeat(side, 1).repeat(side, 2)


def features(images: np.ndarray, network: ColorNetwork | None = None):
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    return collect([(network or ColorNetwork())(tensor)], len(tensor))


def moments(images: np.ndarray) -> dict[str, np.ndarray]:
    """The statistics of a reference file, by NumPy."""
    pool = images.mean((1, 2)) / 255
    spatial = images[:, 0, 0, :2] / 255
    return {
        "mu": pool.mean(0),
        "sigma": np.cov(pool, rowvar=False),
        "mu_s": spatial.mean(0),
        "sigma_s": np.cov(spatial, rowvar=False),
    }


def protocol(**values: object) -> np.ndarray:
    """The protocol in a reference file."""
    return np.array(json.dumps(values))
