"""What is expected of every module that the engine computes with, trains or saves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

from pae_framework.promises import rows_problem
from pae_framework.testing.expect import (
    expect,
    expect_none,
    expect_tensor,
    global_randomness_untouched,
)
from pae_framework.testing.synthetic import normal

Module = TypeVar("Module", bound=nn.Module)

ROWS = 1e-3
"""Tolerance, of the largest value, where one image is computed alone and in a batch."""
BF16 = 0.1
"""Tolerance, of the root mean square, between bf16 autocast and float32."""


def as_if_trained(module: Module) -> Module:
    """A copy with slightly moved trainable weights, so that weights of zero hide nothing."""
    moved = copy.deepcopy(module)
    with torch.no_grad():
        for index, parameter in enumerate(moved.parameters()):
            if parameter.requires_grad and parameter.is_floating_point():
                parameter.add_(0.05 * normal(*parameter.shape, seed=index).to(parameter))
    return moved


def expect_network(
    module: Module,
    inputs: tuple[Tensor, ...],
    shape: tuple[int, ...],
    build: Callable[[], nn.Module],
    what: str,
) -> Module:
    """Everything that the engine relies on in a network that it trains.

    Args:
        module: the network, as its class builds it.
        inputs: of ``forward``; row i of each belongs to image i.
        shape: of the output.
        build: builds the network again.
        what: names the network in messages.

    Returns:
        A copy in train mode, with moved weights.
    """
    moved = as_if_trained(module).train()
    output = expect_tensor(moved(*inputs), shape, f"the output of {what}")
    expect_per_image(moved, *inputs, what=what)
    expect_gradients(output, moved, what)
    expect_state(moved, build, lambda module: module(*inputs))
    return moved


def expect_per_image(compute: Callable[..., Tensor], *inputs: Tensor, what: str) -> None:
    """No randomness, each image by itself, and bf16 near float32."""
    expect_repeatable(lambda: compute(*inputs), what)
    expect_rows_apart(compute, *inputs, what=what)
    expect_bf16(lambda: compute(*inputs), what)


def expect_repeatable(compute: Callable[[], Tensor], what: str) -> Tensor:
    """The same bits twice, without global randomness; returns them."""
    with torch.no_grad(), global_randomness_untouched(what):
        first, again = compute(), compute()
    expect(torch.equal(first, again), f"{what} must give the same numbers for the same input")
    return first


def expect_rows_apart(compute: Callable[..., Tensor], *inputs: Tensor, what: str) -> None:
    """Row i of the output depends on row i of the inputs only."""
    expect_none(rows_problem(compute, inputs, what, ROWS))


def expect_bf16(compute: Callable[[], Tensor], what: str) -> None:
    """Under bf16 autocast: finite, and near the float32 result."""
    with torch.no_grad():
        exact = compute().float()
        with torch.autocast("cpu", torch.bfloat16):
            rough = compute().float()
    expect(bool(rough.isfinite().all()), f"{what} gives NaN or infinity under bf16 autocast")
    error = ((rough - exact).square().mean().sqrt() / exact.square().mean().sqrt()).item()
    expect(
        error <= BF16,
        f"{what} under bf16 autocast differs from float32 by {error:.0%}; compute norms, "
        "exponentials and angles in float32",
    )


def expect_gradients(output: Tensor, module: nn.Module, what: str) -> None:
    """Every trainable weight gets a finite gradient from the output; some gradient is not zero."""
    weights = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not weights:
        return
    loss = (output.float() * normal(*output.shape, seed=1).to(output.device)).sum()
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, retain_graph=True)
    for name, gradient in zip(weights, found, strict=True):
        expect(
            gradient is not None,
            f"{what}: the output does not depend on the weight {name}, so it would never learn; "
            "remove it or set requires_grad=False",
        )
        assert gradient is not None
        expect(bool(gradient.isfinite().all()), f"{what}: the gradient of {name} is not finite")
    expect(any(bool(g.any()) for g in found if g is not None), f"{what}: all gradients are zero")


def expect_input_gradient(output: Tensor, x: Tensor, what: str) -> None:
    """The gradient of the output at ``x`` is finite, and not zero for any image."""
    expect(output.requires_grad, f"{what}: no gradient flows back to the input")
    loss = (output * normal(*output.shape, seed=8)).sum()
    (gradient,) = torch.autograd.grad(loss, x, retain_graph=True)
    usable = bool(gradient.isfinite().all() and gradient.flatten(1).any(dim=1).all())
    expect(usable, f"{what}: the gradient at the input is zero or not finite")


def expect_state(
    module: nn.Module, build: Callable[[], nn.Module], compute: Callable[[nn.Module], Tensor]
) -> None:
    """A new module with the saved and loaded state dict of this one computes the same."""
    name = type(module).__name__
    _expect_no_plain_tensors(module)
    state = {key: value.detach().contiguous() for key, value in module.state_dict().items()}
    try:
        written = safetensors.torch.load(safetensors.torch.save(state))
    except (RuntimeError, ValueError) as error:
        raise AssertionError(
            f"the state dict of {name} cannot be written as safetensors: {error}"
        ) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1234)
        fresh = build()
    try:
        fresh.load_state_dict(written)
    except RuntimeError as error:
        raise AssertionError(
            f"a new {name} cannot load the state dict of another: {error}"
        ) from error
    with torch.no_grad():
        same = torch.equal(compute(module.eval()), compute(fresh.eval()))
    expect(
        same,
        f"a new {name} with the state dict of another computes other numbers: part of its state is "
        "neither a parameter nor a persistent buffer",
    )


def _expect_no_plain_tensors(module: nn.Module) -> None:
    for path, submodule in module.named_modules():
        for name, value in vars(submodule).items():
            expect(
                not isinstance(value, Tensor),
                f"{'.'.join(filter(None, (path, name)))} of {type(module).__name__} is a plain "
                "tensor, which would not move to a GPU with the module; register it as a buffer",
            )
