"""Constants as tensors, made once per device."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    """One value per channel, (1, C, 1, 1), of the type and on the device of ``like``.

    A tensor made from Python numbers is copied to the device, and the copy waits for the device to
    finish its queued work. Hence the cache; the result must not be changed in place.
    """
    return _channels(tuple(values), like.dtype, like.device)


@lru_cache(maxsize=64)
def _channels(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # usable everywhere, wherever it was first needed
        return torch.tensor(values, dtype=dtype, device=device).view(1, -1, 1, 1)
