"""Seeds derived from the purpose of random numbers, so that each can be reproduced alone.

A seed is a hash of its parts, as in ``derive_seed(seed, "order", epoch)``. Each use has its own
seed and nothing depends on earlier draws, so a resumed run draws the same numbers.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """Hash the parts to a seed from 0 to 2**63 - 1.

    It is the same on every machine and in every Python. ``1`` and ``"1"`` differ, and so do
    ``("ab", "c")`` and ``("a", "bc")``.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = str(part).encode()
        kind = "s" if isinstance(part, str) else "i"
        digest.update(f"{kind}{len(text)}:".encode() + text)
    return int.from_bytes(digest.digest(), "big") >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Create a random generator on ``device``, seeded by :func:`derive_seed` of the parts.

    torch uses only the lower 32 bits of a seed on the CPU: of n seeds, about n^2 / 2^33 pairs are
    equal.
    """
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))


@contextmanager
def random_states_kept() -> Iterator[None]:
    """After the block, the global random states of torch, NumPy and Python are as before it."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Inside the block, the global random states of torch, NumPy and Python follow from the parts.

    For code that takes no generator, such as the initial weights of modules.
    """
    seed = derive_seed(*parts)
    with random_states_kept():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield


def on_device(numbers: Tensor, device: torch.device) -> Tensor:
    """Move random numbers from the CPU to the device without synchronizing with it.

    A copy from pageable memory would wait until the device has finished its queued work.
    """
    if device.type != "cuda" or numbers.is_cuda:
        return numbers.to(device)
    return numbers.pin_memory().to(device, non_blocking=True)
