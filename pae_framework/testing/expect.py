"""Expectations of contract checks; they fail with a message."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from pae_framework.promises import difference_problem, tensor_problem


def expect(condition: bool, message: str) -> None:
    """Fail with the message unless the condition holds (also under ``python -O``)."""
    if not condition:
        raise AssertionError(message)


def expect_none(problem: str | None) -> None:
    """Fail with the problem, unless there is none."""
    expect(problem is None, str(problem))


def expect_tensor(
    found: object, shape: tuple[int, ...], what: str, dtype: torch.dtype | None = torch.float32
) -> Tensor:
    """Expect a finite tensor of a shape and dtype (None: any floating-point dtype); return it."""
    expect_none(tensor_problem(found, shape, what, dtype))
    assert isinstance(found, Tensor)
    return found


def expect_close(found: Tensor, expected: Tensor, tolerance: float, message: str) -> None:
    """The largest difference is at most ``tolerance`` times the largest expected value."""
    expect_none(difference_problem(found, expected, tolerance, message))


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
