"""Reconstruction terms: distances between a reconstruction and its image; TERMS lists them all.

They are not ``LossTerm`` objects; ``terms.py`` states what both have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
        """The terms for one training step."""
        networks = self.frozen_modules().items()
        cached = {name: CachedFeatures(network) for name, network in networks}  # type: ignore[arg-type]
        return Comparison(self.weights, {**self._functions, **cached})


class Comparison:
    """The reconstruction terms in one training step; each image is encoded once.

    Args:
        weights: of the terms, by name.
        distances: of the same names.
    """

    def __init__(self, weights: Mapping[str, float], distances: Mapping[str, Distance]):
        self._weights, self._distances = weights, distances

    def __call__(self, a: Tensor, b: Tensor) -> LossTerms:
        """Weighted terms, means over the batch, of two batches of images (B, 3, S, S)."""
        return {
            name: weight * self._distances[name](a, b).mean()
            for name, weight in self._weights.items()
        }

    def detach(self) -> None:
        """Keep the features so far as constants, and release what computed them."""
        for distance in self._distances.values():
            if isinstance(distance, CachedFeatures):
                distance.detach()


def total(terms: LossTerms, like: Tensor) -> Tensor:
    """The sum of the terms; without terms, 0 on the device of ``like``."""
    return torch.stack(list(terms.values())).sum() if terms else like.new_zeros(())
