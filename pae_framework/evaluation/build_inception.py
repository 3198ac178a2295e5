"""Builds the networks of FID and FDr6; their libraries are imported only when they are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pae_framework.contracts import InceptionNetwork

if TYPE_CHECKING:
    from pae_framework.metrics.fdr6_networks import FDr6Features


def inception_network(weights: str, device: torch.device) -> InceptionNetwork:
    """The network with these weights on a device.

    Raises:
        DataError: the weights are missing or damaged.
        CheckpointError: the file holds other weights.
    """
    from pae_framework.metrics.inception_network import InceptionExtractor

    return InceptionExtractor(weights, device)


def fdr6_network(name: str, weights: str, device: torch.device) -> FDr6Features:
    """A network of FDr6 other than Inception; see :meth:`EvaluationInputs.fdr6_features`.

    Raises:
        DataError: its weights are missing.
    """
    from pae_framework.metrics.fdr6 import NETWORKS
    from pae_framework.metrics.fdr6_networks import FDr6Features

    return FDr6Features(NETWORKS[name], weights, device)
