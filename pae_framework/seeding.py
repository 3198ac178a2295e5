"""Seeds derived from the purpose of random numbers, so that each can be reproduced alone.

A seed is a hash of its parts, as in ``derive_seed(seed, "order", epoch)``. Each use has its own
seed and nothing depends on earlier draws, so a resumed run draws the same numbers.
"""

from __future__ import annotations

import hashlib

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


def on_device(numbers: Tensor, device: torch.device) -> Tensor:
    """Move random numbers from the CPU to the device without synchronizing with it.

    A copy from pageable memory would wait until the device has finished its queued work.
    """
    if device.type != "cuda" or numbers.is_cuda:
        return numbers.to(device)
    return numbers.pin_memory().to(device, non_blocking=True)
