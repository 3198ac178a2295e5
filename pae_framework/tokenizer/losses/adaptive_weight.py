"""Adaptive weights: factors that keep a term's gradients in proportion to the reconstruction's.

As VQGAN (Esser, Rombach and Ommer, CVPR 2021, arXiv 2012.09841) does for its adversarial term, and
VA-VAE (arXiv 2501.01423) for its alignment with a vision model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from pae_framework.errors import UsageError


@dataclass(frozen=True)
class Bounds:
    """``eps`` is added to the term's gradient norm; no factor exceeds ``most``."""

    eps: float
    most: float


ADVERSARIAL = Bounds(eps=1e-6, most=1e4)
"""RAE's, for the adversarial term, at the decoder's last layer."""
REGULARIZER = Bounds(eps=1e-4, most=1e8)
"""VA-VAE's, for regularizers, at the last layer before the latents."""


class Balance:
    """The factors ``min(|grad reconstruction| / (|grad term| + eps), most)`` of one training step.

    Args:
        reconstruction: the sum of the reconstruction terms, a scalar.
        layer: the weight at which gradients are measured.
        bounds: eps and the largest factor.
    """

    def __init__(self, reconstruction: Tensor, layer: nn.Parameter, bounds: Bounds):
        self._reconstruction, self._layer, self._bounds = reconstruction, layer, bounds

    def factor(self, term: Tensor, name: str) -> Tensor:
        """The factor of a term, a scalar without gradient.

        Raises:
            UsageError: the term, or the reconstruction, has no gradient at the layer.
        """
        ratio = self._reference / (gradient_norm(term, self._layer, name) + self._bounds.eps)
        return ratio.clamp(max=self._bounds.most)

    @cached_property
    def _reference(self) -> Tensor:
        return gradient_norm(self._reconstruction, self._layer, "the reconstruction")


def gradient_norm(term: Tensor, layer: nn.Parameter, name: str) -> Tensor:
    """L2 norm of a scalar's gradient at one weight; detached. Keeps the graph and every ``.grad``.

    Raises:
        UsageError: there is no such gradient; the message calls the scalar ``name``.
    """
    found: Tensor | None = None
    if term.requires_grad and layer.requires_grad:
        (found,) = torch.autograd.grad(term, layer, retain_graph=True, allow_unused=True)
    if found is None:
        raise UsageError(
            f"adaptive weights: {name} has no gradient at the layer where they are measured. It "
            "does not depend on that layer, or `lr_factors` freeze it; set `adaptive` to false"
        )
    return found.float().norm()
