"""Inception score (Salimans et al. 2016), by the two usual ways of cutting the images into blocks.

Legend: M images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from pae_framework.errors import DataError

ADM_BLOCK = 5000
"""Images of a block of the ADM evaluator; the last may have fewer."""
SPLITS, SPLIT_SEED = 10, 2020
"""Blocks of torch-fidelity, and the seed with which it shuffles before it cuts."""


def adm_inception_score(logits: Tensor) -> float:
    """The mean over consecutive blocks of 5000 images, which makes it depend on their order.

    Args:
        logits: (M, K).

    Raises:
        DataError: there are no images.
    """
    _require(logits, 1)
    return float(np.mean(_scores(logits.split(ADM_BLOCK))))


def split_inception_score(logits: Tensor) -> tuple[float, float]:
    """The mean over 10 blocks of shuffled images, and its standard deviation, as torch-fidelity.

    Args:
        logits: (M, K) with M of at least 10.

    Raises:
        DataError: there are fewer images than blocks.
    """
    _require(logits, SPLITS)
    order = np.random.RandomState(SPLIT_SEED).permutation(len(logits))
    shuffled = logits[torch.from_numpy(order)]
    cuts = [len(logits) * number // SPLITS for number in range(1, SPLITS)]
    scores = _scores(shuffled.tensor_split(cuts))
    return float(np.mean(scores)), float(np.std(scores))


def _require(logits: Tensor, count: int) -> None:
    if len(logits) < count:
        raise DataError(f"an inception score needs at least {count} images, not {len(logits)}")


def _scores(blocks: Iterable[Tensor]) -> list[float]:
    return [_score(block) for block in blocks]


def _score(logits: Tensor) -> float:
    """``exp(mean_i KL(p_i | mean p))`` of logits (m, K), in float64."""
    log_p = logits.double().log_softmax(1)
    p = log_p.exp()
    mean = p.mean(0)
    # A class that no image has adds 0.
    divergence = (p * log_p).sum(1).mean() - torch.xlogy(mean, mean).sum()
    return float(divergence.exp())
