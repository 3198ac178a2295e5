"""Improved precision and recall (Kynkaanniemi et al. 2019): balls around nearest neighbors.

Legend: M samples, N reference images, D width of the features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pae_framework.errors import DataError
from pae_framework.metrics.full_precision import full_precision

NEIGHBORS = 3
"""A ball reaches to the third nearest neighbor in its own set."""
_DISTANCES = 1 << 26
"""Distances in memory at once."""

Distance = Callable[[Tensor, Tensor], Tensor]
"""Squared Euclidean distances (B, N) of rows (B, D) and (N, D)."""


def exact(a: Tensor, b: Tensor) -> Tensor:
    """Distances in the type of the features, 0 where rounding hides whether rows are equal."""
    center = b.mean(0)  # distances stay, and lose less to rounding
    a, b = a - center, b - center
    sums = a.square().sum(1)[:, None] + b.square().sum(1)
    distances = sums - 2 * a @ b.T
    return distances.masked_fill_(distances < 8 * torch.finfo(a.dtype).eps * sums, 0)


def half(a: Tensor, b: Tensor) -> Tensor:
    """Distances in float16, as the ADM evaluator computes them on a GPU.

    Products are summed in float32. Where a distance is too large for float16, those of all of these
    rows are computed in float32.
    """
    distances = _rounded_distances(a, b, torch.float16)
    if not distances.isfinite().all():
        distances = _rounded_distances(a, b, torch.float32)
    return distances.float()


def _rounded_distances(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    a, b = a.to(dtype), b.to(dtype)
    lengths = [x.square().float().sum(1).to(dtype) for x in (a, b)]
    products = (a.float() @ b.float().T).to(dtype)
    return (lengths[0][:, None] - 2 * products + lengths[1]).clamp_min(0)


def precision_recall(samples: Tensor, reference: Tensor, distance: Distance) -> tuple[float, float]:
    """Precision: share of samples in a ball of the reference. Recall: the other way round.

    Args:
        samples: features (M, D), M of at least 4.
        reference: features (N, D), N of at least 4, on the same device.
        distance: of rows; never all distances are in memory at once. No TF32 is used.

    Raises:
        DataError: a set has fewer than 4 images.
    """
    precision = _share_inside(samples, reference, distance)
    recall = _share_inside(reference, samples, distance)
    return precision, recall


def squared_radii(rows: Tensor, distance: Distance) -> Tensor:
    """Squared distance (N,) of each row (N, D) to its third nearest neighbor among the others.

    Raises:
        DataError: there are fewer than 4 rows.
    """
    if len(rows) <= NEIGHBORS:
        raise DataError(
            f"{NEIGHBORS} neighbors need at least {NEIGHBORS + 1} images, not {len(rows)}"
        )
    # A row is its own nearest neighbor.
    radii = [d.kthvalue(NEIGHBORS + 1, dim=1).values for d in _blocks(rows, rows, distance)]
    return torch.cat(radii)


def _share_inside(rows: Tensor, centers: Tensor, distance: Distance) -> float:
    radii = squared_radii(centers, distance)
    inside = [(distances <= radii).any(1) for distances in _blocks(rows, centers, distance)]
    return torch.cat(inside).double().mean().item()


def _blocks(rows: Tensor, others: Tensor, distance: Distance) -> Iterator[Tensor]:
    for some in rows.split(max(1, _DISTANCES // len(others))):
        with full_precision():
            distances = distance(some, others)
        yield distances
