"""Kernel distance (KID, Binkowski et al. 2018): unbiased MMD with a cubic kernel, over subsets."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pae_framework.errors import DataError

SUBSETS, SUBSET, SEED = 100, 1000, 2020
"""Number of random subsets, images of each, and the seed of the choice, as in torch-fidelity."""


def subset_size(count: int, reference_count: int) -> int:
    """Images of each subset: 1000, or all of the smaller set."""
    return min(SUBSET, count, reference_count)


def kernel_distance(samples: Tensor, reference: Tensor) -> tuple[float, float | None]:
    """Mean and standard deviation over subsets of the squared MMD, in float64.

    It may be slightly below 0, because the estimate is unbiased. If all subsets are the whole sets,
    there is no deviation.

    Args:
        samples: features (M, D), M of at least 2.
        reference: features (N, D), N of at least 2.

    Raises:
        DataError: a set has fewer than 2 images.
    """
    random = np.random.RandomState(SEED)
    size = subset_size(len(samples), len(reference))
    if size < 2:
        raise DataError(f"a kernel distance needs at least 2 images of each set, not {size}")
    if size == len(samples) == len(reference):
        return _squared_mmd(samples.double(), reference.double()), None
    values = [
        _squared_mmd(_subset(samples, size, random), _subset(reference, size, random))
        for _ in range(SUBSETS)
    ]
    return float(np.mean(values)), float(np.std(values))


def _subset(rows: Tensor, size: int, random: np.random.RandomState) -> Tensor:
    return rows[torch.from_numpy(random.choice(len(rows), size, replace=False))].double()


def _squared_mmd(x: Tensor, y: Tensor) -> float:
    """Of two sets of the same size m."""
    m = len(x)
    within = sum(kernel.sum() - kernel.trace() for kernel in (_kernel(x, x), _kernel(y, y)))
    return float(within / (m * (m - 1)) - 2 * _kernel(x, y).mean())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3
