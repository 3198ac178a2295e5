"""Builds the networks of FID and FDr6; their libraries are imported only when they are needed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pae_framework.contracts import InceptionNetwork


def inception_network(weights: str, device: torch.device) -> InceptionNetwork:
    """The network with these weights on a device.

    Raises:
        DataError: the weights are missing or damaged.
        CheckpointError: the file holds other weights.
    """
    from pae_framework.metrics.inception_network import InceptionExtractor

    return InceptionExtractor(weights, device)


def fdr6_network(name: str, weights: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A network of FDr6 other than Inception; see :meth:`EvaluationInputs.judge`.

    Raises:
        DataError: its weights are missing.
    """
    from pae_framework.metrics.fdr6 import JUDGES
    from pae_framework.metrics.fdr6_networks import JudgeFeatures

    return JudgeFeatures(JUDGES[name], weights, device)
