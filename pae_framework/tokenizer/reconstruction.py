"""How unlike a reconstruction is to its image: the weighted terms a recipe asks for."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pae_framework.contracts import Encoder, LossTerms
from pae_framework.frozen import UsesFrozen
from pae_framework.tokenizer.lpips import LPIPS, build_lpips
from pae_framework.tokenizer.perceptual import (
    PerceptualDistance,
    RememberedFeatures,
    build_distance,
)
from pae_framework.tokenizer.tokenizer_settings import ReconstructionSettings

Comparison = Callable[[Tensor, Tensor], LossTerms]
"""Weighted terms of two batches of images (B, 3, S, S), means over the batch."""


class ReconstructionTerms(UsesFrozen):
    """``l1``, ``perceptual`` and ``lpips``; what has weight 0 is neither built nor computed.

    Args:
        settings: the recipe's ``tokenizer.reconstruction``.
        encoder: the tokenizer's, in whose features the stand-in for LPIPS compares.

    Raises:
        UsageError: the encoder lacks a layer that is to be compared.
        DataError: LPIPS's weights are not here and cannot be downloaded.
        CheckpointError: they belong to another network.
    """

    perceptual: PerceptualDistance
    lpips: LPIPS

    def __init__(self, settings: ReconstructionSettings, encoder: Encoder):
        super().__init__()
        weights = {
            "l1": settings.l1,
            "perceptual": settings.perceptual.weight,
            "lpips": settings.lpips.weight,
        }
        self.weights = {name: weight for name, weight in weights.items() if weight}
        if "perceptual" in self.weights:
            self.hold_frozen("perceptual", build_distance(settings.perceptual, encoder))
        if "lpips" in self.weights:
            self.hold_frozen("lpips", build_lpips(settings.lpips))

    def comparison(self) -> Comparison:
        """The terms, as a function for one training step: features of images met again are kept."""
        distances: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": F.l1_loss}
        for name in self.weights.keys() - {"l1"}:
            distances[name] = RememberedFeatures(getattr(self, name))

        def terms(a: Tensor, b: Tensor) -> LossTerms:
            return {
                name: weight * distances[name](a, b).mean() for name, weight in self.weights.items()
            }

        return terms


def total(terms: LossTerms, like: Tensor) -> Tensor:
    """The sum of terms; 0 on the device of ``like`` where there is none."""
    return torch.stack(list(terms.values())).sum() if terms else like.new_zeros(())
