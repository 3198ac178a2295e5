"""Shares of the terms in the tokenizer's loss and in its gradient at the latents."""

from __future__ import annotations

import torch
from torch import Tensor

from pae_framework.contracts import LossTerms
from pae_framework.world import World

LOSS, GRADIENT = "loss/", "grad/"
"""Precede the name of a term in the log columns of its shares."""


def measure_shares(terms: LossTerms, latents: Tensor, world: World, share: float) -> LossTerms:
    """The shares of each term, as ``loss/<term>`` and ``grad/<term>``.

    ``loss/`` is the absolute value of the weighted term, divided by the sum of all these. ``grad/``
    is the L2 norm of its gradient at the latents of the whole batch, divided by the sum of all
    these norms; it is 0 for a term that does not depend on the latents. Each kind adds up to 1,
    or is 0 if all terms are.

    Keeps the graph and every ``.grad``.

    Args:
        terms: weighted terms, means over the images of this process.
        latents: of these images, (B, C, h, w); computed with gradient or not.
        world: the processes that share the batch.
        share: share of this process in its images.
    """
    values = torch.stack([share * term.detach().float() for term in terms.values()])
    squares = torch.stack([_squared_norm(share * term, latents) for term in terms.values()])
    values, squares = world.sum(torch.stack([values, squares])).unbind()
    columns: LossTerms = {}
    for prefix, sizes in ((LOSS, values.abs()), (GRADIENT, squares.sqrt())):
        shares = sizes / sizes.sum().clamp(min=torch.finfo(sizes.dtype).tiny)
        columns |= {f"{prefix}{name}": part for name, part in zip(terms, shares, strict=True)}
    return columns


def _squared_norm(term: Tensor, latents: Tensor) -> Tensor:
    """Squared L2 norm () of the gradient of a term at the latents; float32."""
    gradient: Tensor | None = None
    if term.requires_grad and latents.requires_grad:
        (gradient,) = torch.autograd.grad(term, latents, retain_graph=True, allow_unused=True)
    return (
        term.new_zeros((), dtype=torch.float32)
        if gradient is None
        else (gradient.float().square().sum())
    )
