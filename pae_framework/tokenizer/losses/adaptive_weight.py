"""Adaptive weights: factors that keep a term's gradients in proportion to the reconstruction's.

As VQGAN (Esser, Rombach and Ommer, CVPR 2021, arXiv 2012.09841) does for its adversarial term, and
VA-VAE (arXiv 2501.01423) for its alignment with a vision model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pae_framework.errors import UsageError
from pae_framework.world import ONE_PROCESS, World


@dataclass(frozen=True)
class Bounds:
    """``eps`` is added to the term's gradient norm; no factor exceeds ``most``."""

    eps: float
    most: float

    def factor(self, reconstruction: Tensor, term: Tensor) -> Tensor:
        """``min(reconstruction / (term + eps), most)`` of two gradient norms, both ()."""
        return (reconstruction / (term + self.eps)).clamp(max=self.most)


ADVERSARIAL_BOUNDS = Bounds(eps=1e-6, most=1e4)
"""RAE's, for the adversarial term, at the decoder's last layer."""
REGULARIZER_BOUNDS = Bounds(eps=1e-4, most=1e8)
"""VA-VAE's, for regularizers, at the last layer before the latents."""


def gradient_norm(
    term: Tensor,
    layer: nn.Parameter,
    name: str,
    world: World = ONE_PROCESS,
    share: float = 1.0,
) -> Tensor:
    """L2 norm of a scalar's gradient at one weight; detached. Keeps the graph and every ``.grad``.

    Args:
        term: the scalar, a mean over the images of this process.
        layer: the weight.
        name: of the term, for the error message.
        world: the norm is that of the mean over the images of all processes.
        share: share of this process in these images.

    Raises:
        UsageError: there is no such gradient; the message calls the scalar ``name``.
    """
    gradient: Tensor | None = None
    if term.requires_grad and layer.requires_grad:
        term = term if world.size == 1 else share * term
        (gradient,) = torch.autograd.grad(term, layer, retain_graph=True, allow_unused=True)
    if gradient is None:
        raise UsageError(
            f"adaptive weights: {name} has no gradient at the layer where they are measured: it "
            "does not depend on the layer, or tokenizer.train.lr_factors freezes the layer; set "
            "adaptive=false"
        )
    return world.sum(gradient.float()).norm()
