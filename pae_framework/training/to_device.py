"""Batches on their way to the device."""

from __future__ import annotations

import torch

from pae_framework.contracts import Batch
from pae_framework.seeding import on_device


class ToDevice:
    """Copies batches to a device, on a GPU beside its queued work.

    The host queues a step long before the GPU gets to it. So with a stream of its own, the copy of
    the next batch, which must be in pinned memory, takes place during the step before it.

    Args:
        device: where the batches go.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: Batch) -> Batch:
        """The batch on the device, for the current stream."""
        if self._copies is None:
            return tuple(tensor.to(self._device, non_blocking=True) for tensor in batch)
        with torch.cuda.stream(self._copies):
            moved = tuple(on_device(tensor, self._device) for tensor in batch)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._copies)
        for tensor in moved:
            tensor.record_stream(current)  # its memory is not reused before that stream is done
        return moved
