"""Reconstruction terms: distances between a reconstruction and its image; TERMS lists them all.

They are not ``LossTerm`` objects; ``terms.py`` states what both have in common.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.contracts import Encoder, LossTerms
from pae_framework.frozen import UsesFrozen
from pae_framework.tokenizer.losses.lpips import build_lpips
from pae_framework.tokenizer.losses.perceptual import CachedFeatures, PerceptualDistance
from pae_framework.tokenizer.tokenizer_settings import ReconstructionSettings

Distance = Callable[[Tensor, Tensor], Tensor]
"""Distances (B,), or their mean (), between two batches of images (B, 3, S, S) in [0, 1]."""

Comparison = Callable[[Tensor, Tensor], LossTerms]
"""Weighted terms, means over the batch, of two batches of images (B, 3, S, S)."""

TERMS: dict[str, Callable[[Any, Encoder], Distance]] = {
    "l1": lambda settings, encoder: F.l1_loss,
    "perceptual": lambda settings, encoder: PerceptualDistance(encoder, settings.layers),
    "lpips": lambda settings, encoder: build_lpips(settings),
}
"""Name -> function that builds the distance from the term's settings and the tokenizer's encoder.

A term is a field of :class:`ReconstructionSettings` and a row here. A distance that is a Module is
frozen and implements FeatureDistance, so that no image is encoded twice in a step.
"""


def build_distance(name: str, settings: ReconstructionSettings, encoder: Encoder) -> Distance:
    """The distance of one reconstruction term, whatever its weight.

    Raises:
        UsageError: the encoder lacks one of the layers to compare.
        DataError: LPIPS's weights are missing and cannot be downloaded.
        CheckpointError: they belong to another network.
    """
    return TERMS[name](settings.terms[name], encoder)


class ReconstructionTerms(UsesFrozen):
    """The active reconstruction terms. Networks are held frozen, under the names of their terms.

    Args:
        settings: the terms and their weights.
        encoder: the tokenizer's, in whose features ``perceptual`` compares.

    Raises:
        UsageError, DataError, CheckpointError: see :func:`build_distance`.
    """

    def __init__(self, settings: ReconstructionSettings, encoder: Encoder):
        super().__init__()
        self.weights = {name: term.weight for name, term in settings.active_terms.items()}
        self._functions: dict[str, Distance] = {}
        for name in self.weights:
            distance = build_distance(name, settings, encoder)
            if isinstance(distance, nn.Module):
                self.hold_frozen(name, distance)
            else:
                self._functions[name] = distance

    def comparison(self) -> Comparison:
        """A function for one training step that computes the terms and encodes each image once."""
        networks = self.frozen_modules().items()
        distances: dict[str, Distance] = {
            **self._functions,
            **{name: CachedFeatures(network) for name, network in networks},  # type: ignore[arg-type]
        }

        def terms(a: Tensor, b: Tensor) -> LossTerms:
            return {
                name: weight * distances[name](a, b).mean() for name, weight in self.weights.items()
            }

        return terms


def total(terms: LossTerms, like: Tensor) -> Tensor:
    """The sum of the terms; without terms, 0 on the device of ``like``."""
    return torch.stack(list(terms.values())).sum() if terms else like.new_zeros(())
