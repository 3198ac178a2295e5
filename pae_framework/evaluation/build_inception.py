"""Builds the Inception network; torch-fidelity is imported only when it is needed."""

from __future__ import annotations

import torch

from pae_framework.contracts import InceptionNetwork


def inception_network(weights: str, device: torch.device) -> InceptionNetwork:
    """The network with these weights on a device.

    Raises:
        DataError: the weights are missing or damaged.
        CheckpointError: the file holds other weights.
    """
    from pae_framework.metrics.inception_network import InceptionExtractor

    return InceptionExtractor(weights, device)
