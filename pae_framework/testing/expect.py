"""Expectations of contract checks; they fail with a message."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def expect(condition: bool, message: str) -> None:
    """Fail with the message unless the condition holds (also under ``python -O``)."""
    if not condition:
        raise AssertionError(message)


def expect_tensor(
    found: object, shape: tuple[int, ...], what: str, dtype: torch.dtype | None = torch.float32
) -> Tensor:
    """Expect a finite tensor of a shape and dtype (None: any floating-point dtype); return it."""
    expect(isinstance(found, Tensor), f"{what} is a {type(found).__name__}, not a tensor")
    assert isinstance(found, Tensor)
    expect(
        tuple(found.shape) == shape, f"{what} has the shape {tuple(found.shape)}, expected {shape}"
    )
    if dtype is None:
        expect(found.is_floating_point(), f"{what} is {found.dtype}, not floating point")
    else:
        expect(found.dtype == dtype, f"{what} is {found.dtype}, expected {dtype}")
    finite = not found.is_floating_point() or bool(found.isfinite().all())
    expect(finite, f"{what} contains NaN or infinity")
    return found


def expect_close(found: Tensor, expected: Tensor, tolerance: float, message: str) -> None:
    """The largest difference is at most ``tolerance`` times the largest expected value."""
    difference = (found.float() - expected.float()).abs().max().item()
    allowed = tolerance * expected.float().abs().max().item()
    expect(
        difference <= allowed,
        f"{message} (largest difference {difference:.2g}, allowed {allowed:.2g})",
    )


@contextmanager
def global_randomness_untouched(what: str) -> Iterator[None]:
    """Inside the block, the global random states of torch, NumPy and Python must not change."""
    before = _random_states()
    yield
    for name, state in _random_states().items():
        expect(
            state == before[name],
            f"{what} used {name}'s global random state. Use the torch.Generator that is passed in "
            "or a seed of the config; otherwise a resumed run would give other results",
        )


def _random_states() -> dict[str, object]:
    numpy_state = np.random.get_state(legacy=False)
    return {
        "torch": torch.random.get_rng_state().numpy().tobytes(),
        "numpy": repr((numpy_state["state"]["pos"], numpy_state["state"]["key"].tobytes())),
        "random": random.getstate(),
    }
