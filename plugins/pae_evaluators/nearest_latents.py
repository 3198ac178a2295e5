"""The nearest training latents of each test image.

Legend: M test images, N training images, D numbers of a latent, K neighbors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pae_framework.contracts import LatentRows
from pae_framework.metrics.full_precision import full_precision
from pae_framework.seeding import generator

_QUERIES, _ROWS = 1 << 27, 1 << 25
"""Numbers of test latents and of training latents that are in memory at once."""


def nearest_latents(
    latents: Tensor, rows: LatentRows, count: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Rows (M, count) of the nearest training latents, nearest first, by the cosine of latents.

    Args:
        latents: of test images (M, C, h, w).
        rows: training latents, at least ``count``; read in blocks, once for every 2^27 numbers of
            test latents.
        count: neighbors of each.
        device: where the cosines are computed, in float32.
    """
    width = latents[0].numel()
    with full_precision():
        return torch.cat(
            [
                _nearest(_directions(block, device), rows, count)
                for block in latents.split(max(1, _QUERIES // width))
            ]
        )


def _nearest(queries: Tensor, rows: LatentRows, count: int) -> Tensor:
    """Of directions (B, D)."""
    best = queries.new_full((len(queries), count), -torch.inf)  # cosines, in descending order
    found = torch.zeros(best.shape, dtype=torch.int64, device=best.device)
    for block in _blocks(len(rows), max(1, _ROWS // queries.shape[1])):
        cosines = queries @ _directions(rows.read(block), queries.device).T  # (B, rows)
        closest = cosines.topk(min(count, len(block)), dim=1)
        best, order = torch.cat([best, closest.values], 1).topk(count, dim=1)
        numbers = closest.indices + block[0].item()
        found = torch.cat([found, numbers], 1).gather(1, order)
    return found.cpu()


def _directions(latents: Tensor, device: torch.device | str) -> Tensor:
    return F.normalize(latents.flatten(1).to(device, torch.float32), dim=1)


def _blocks(length: int, size: int) -> Iterator[Tensor]:
    yield from torch.arange(length).split(size)


def draw_neighbors(differences: Tensor, seed: int, indices: Sequence[int]) -> Tensor:
    """The neighbor (B,) of each image, drawn with probability ``softmax(-difference)``.

    What is drawn for an image depends on the seed and its index only.

    Args:
        differences: (B, K) of an image and its neighbors.
        seed: of the evaluation.
        indices: (B,) of the images in their data source.
    """
    shares = differences.double().neg().softmax(1).cumsum(1)  # (B, K)
    draws = [
        torch.rand((), generator=generator(seed, "interpolation", index), dtype=torch.float64)
        for index in indices
    ]
    return (shares <= torch.stack(draws)[:, None]).sum(1).clamp(max=differences.shape[1] - 1)
