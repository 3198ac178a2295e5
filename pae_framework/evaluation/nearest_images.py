"""The training images nearest to some samples, to see whether a generator copies them.

Legend: M samples, N training images looked at, K neighbors, S image side, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from pae_framework.contracts import DataSource
from pae_framework.data.images import read_images

PIXEL_SIDE = 32
"""Side at which :func:`small_pixels` compares images."""
_BATCH = 64


def nearest_images(
    samples: Tensor,
    source: DataSource,
    indices: Sequence[int],
    features: Callable[[Tensor], Tensor],
    count: int,
) -> Tensor:
    """The nearest images (M, K, 3, S, S) uint8 of each sample, the nearest first.

    Only the K nearest images of each sample are kept in memory.

    Args:
        samples: (M, 3, S, S) uint8.
        source: the training images.
        indices: (N,) those that are looked at.
        features: images (B, 3, S, S) uint8 to features (B, D), compared by their distance.
        count: K; fewer if N is smaller.

    Raises:
        DataError: an image cannot be read.
    """
    wanted = features(samples).double()  # (M, D)
    distances = wanted.new_empty(len(samples), 0)
    nearest = samples.new_empty(len(samples), 0, *samples.shape[1:])
    for batch in torch.tensor(indices).split(_BATCH):
        images, _ = read_images(source, batch)
        found = torch.cdist(wanted, features(images).double())  # (M, B)
        candidates = torch.cat([distances, found], dim=1)
        distances, kept = candidates.sort(dim=1, stable=True)
        distances, kept = distances[:, :count], kept[:, :count]
        pick = partial(_pick, before=nearest, batch=images)
        nearest = torch.stack([pick(row, chosen) for row, chosen in enumerate(kept)])
    return nearest


def small_pixels(images: Tensor) -> Tensor:
    """Pixels in [0, 1] (B, D) of images (B, 3, S, S) uint8, of at most 32 px a side."""
    pixels = images.float() / 255
    if images.shape[-1] > PIXEL_SIDE:
        pixels = F.interpolate(pixels, size=(PIXEL_SIDE, PIXEL_SIDE), mode="area")
    return pixels.flatten(1)


def _pick(row: int, chosen: Tensor, before: Tensor, batch: Tensor) -> Tensor:
    """Images (K, 3, S, S): numbers below K are those kept before, others are of the batch."""
    kept = before.shape[1]
    return torch.stack([before[row, i] if i < kept else batch[i - kept] for i in chosen.tolist()])
