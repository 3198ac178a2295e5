"""What is expected of every module the engine trains."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from pae_framework.testing.expect import expect, expect_close, global_randomness_untouched
from pae_framework.testing.synthetic import draw

Module = TypeVar("Module", bound=nn.Module)

ROWS = 1e-3
"""Tolerance, of the largest value, where one image is computed alone and in a batch."""
BF16 = 0.1
"""Tolerance, of the root mean square, between bf16 autocast and float32."""


def as_if_trained(module: Module) -> Module:
    """A copy whose trainable weights are moved a little, so that no zero hides what it does."""
    moved = copy.deepcopy(module)
    with torch.no_grad():
        for index, parameter in enumerate(moved.parameters()):
            if parameter.requires_grad and parameter.is_floating_point():
                parameter.add_(0.05 * draw(*parameter.shape, seed=index).to(parameter))
    return moved


def expect_repeatable(compute: Callable[[], Tensor], what: str) -> Tensor:
    """The same bits twice, and no global randomness."""
    with torch.no_grad(), global_randomness_untouched(what):
        first, again = compute(), compute()
    expect(torch.equal(first, again), f"{what} gives other numbers for the same input")
    return first


def expect_rows_apart(compute: Callable[..., Tensor], *inputs: Tensor, what: str) -> None:
    """Row i of the output depends on row i of the inputs only."""
    with torch.no_grad():
        together = compute(*inputs)[:1]
        alone = compute(*(x[:1] for x in inputs))
    message = (
        f"{what} of an image depends on the images beside it; the engine puts batches together as "
        "it likes, so normalise within an image, never over the batch"
    )
    expect_close(together, alone, ROWS, message)


def expect_bf16(compute: Callable[[], Tensor], what: str) -> None:
    """Under bf16 autocast: finite, and near the float32 result."""
    with torch.no_grad():
        exact = compute().float()
        with torch.autocast("cpu", torch.bfloat16):
            rough = compute().float()
    expect(bool(rough.isfinite().all()), f"{what} holds NaN or infinity under bf16 autocast")
    error = ((rough - exact).square().mean().sqrt() / exact.square().mean().sqrt()).item()
    expect(
        error <= BF16,
        f"{what} under bf16 autocast is {error:.0%} away from float32; compute what needs the "
        "digits (norms, exponentials, angles) in float32",
    )


def expect_gradients(output: Tensor, module: nn.Module, what: str) -> None:
    """Every trainable weight of the module gets a finite gradient from the output, some not 0."""
    weights = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not weights:
        return
    loss = (output.float() * draw(*output.shape, seed=1).to(output.device)).sum()
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, retain_graph=True)
    for name, gradient in zip(weights, found, strict=True):
        expect(
            gradient is not None,
            f"{what}: the weight {name} takes no part in the output, so it would never learn; "
            "remove it or set requires_grad to False",
        )
        assert gradient is not None
        expect(bool(gradient.isfinite().all()), f"{what}: the gradient of {name} is not finite")
    expect(any(bool(g.any()) for g in found if g is not None), f"{what}: all gradients are zero")
