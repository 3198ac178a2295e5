"""What is expected of every module the engine saves and moves."""

from __future__ import annotations

from collections.abc import Callable

import safetensors.torch
import torch
from torch import Tensor, nn

from pae_framework.testing.expect import expect


def expect_state(
    module: nn.Module, build: Callable[[], nn.Module], compute: Callable[[nn.Module], Tensor]
) -> None:
    """What a module knows is in its state dict: written, read into a new one, it does the same."""
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
            f"a new {name} does not take the state dict of another: {error}"
        ) from error
    with torch.no_grad():
        same = torch.equal(compute(module.eval()), compute(fresh.eval()))
    expect(
        same,
        f"a new {name} with the state dict of another gives other numbers: something it knows is "
        "neither a parameter nor a persistent buffer",
    )


def _expect_no_plain_tensors(module: nn.Module) -> None:
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            expect(
                not isinstance(value, Tensor),
                f"{'.'.join(filter(None, (path, name)))} of {type(module).__name__} is a plain "
                "tensor and would stay behind when the module moves to a GPU; register a buffer",
            )
