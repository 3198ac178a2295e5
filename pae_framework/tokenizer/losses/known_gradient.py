"""Scalars of the reconstruction whose gradient there is computed at once, and only once.

An adaptive weight needs the gradients of two scalars at one layer, and the training step then needs
them at every weight. Both pass through the reconstruction, so the way back through LPIPS or a
discriminator is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pae_framework.contracts import LossTerms


def with_known_gradients(
    scalars: Callable[[Tensor], LossTerms], images: Tensor, share: float = 1.0
) -> LossTerms:
    """Scalars of ``images``, by name; backward passes through them start at the images.

    They multiply the gradient at the images, which rounds differently from scaling the scalar,
    unless by a power of two.

    Args:
        scalars: computes them. They depend on nothing else that needs a gradient.
        images: (B, 3, S, S). Without a graph, the scalars have none either.
        share: share of this process in the images of all. Batch norm over processes adds up their
            gradients, which must be those of their weighted sum.
    """
    if not images.requires_grad or not torch.is_grad_enabled():
        return scalars(images)
    leaf = images.detach().requires_grad_()
    return {name: _known(value, leaf, images, share) for name, value in scalars(leaf).items()}


def _known(value: Tensor, leaf: Tensor, images: Tensor, share: float) -> Tensor:
    gradient: Tensor | None = None
    if value.requires_grad:
        # As in the backward pass of the step, which runs outside of autocast.
        with torch.autocast(value.device.type, enabled=False):
            (gradient,) = torch.autograd.grad(share * value, leaf, allow_unused=True)
    if gradient is None:  # the value does not depend on the images
        return value.detach()
    known: Tensor = _KnownGradient.apply(images, value.detach(), gradient / share)
    return known


class _KnownGradient(torch.autograd.Function):
    """A value () with a given gradient at x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return outer[0] * gradient, None, None
