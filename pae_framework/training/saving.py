"""Save checkpoints beside the training, which waits only while its state is copied."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from types import TracebackType

import torch
from torch import Tensor

from pae_framework.training.checkpoint import Checkpoints, Files, TrainingState
from pae_framework.training.metrics_log import MetricsLog
from pae_framework.training.parallel import whole
from pae_framework.world import World

CHUNK = 1 << 28
"""Bytes that are allocated at once. Torch rounds pinned memory up to a power of two."""
THREAD = "checkpoint"
"""Name of the thread that writes a checkpoint."""
_ALIGNMENT = 64
"""Bytes; a multiple of the size of any number."""

logger = logging.getLogger(__name__)


class HostCopy:
    """A copy of tensors in main memory, which the next copy overwrites.

    The memory is allocated once, at the first copy. A GPU copies into pinned memory several times
    faster, but pinning takes longer than copying.

    Args:
        device: that most of the tensors are on.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._pinned = device.type == "cuda"
        self._places: dict[tuple[str, str], Tensor] = {}

    @torch.no_grad()
    def take(self, files: Files, world: World) -> Files:
        """Copy tensors, whole ones in place of sharded ones.

        Every process must call it; only the main process allocates memory and gets the copy.
        """
        if world.is_main:
            self._allocate({(file, name): x for file in files for name, x in files[file].items()})
        copied: Files = {file: {} for file in files} if world.is_main else {}
        for file, tensors in files.items():
            for name, value in tensors.items():
                gathered = whole(value)
                if world.is_main:
                    copied[file][name] = self._places[file, name].copy_(gathered, non_blocking=True)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return copied

    def _allocate(self, tensors: Mapping[tuple[str, str], Tensor]) -> None:
        """Places for the tensors that have none, side by side in chunks of memory."""
        missing = {key: x for key, x in tensors.items() if key not in self._places}
        left = sum(map(_aligned_size, missing.values()))
        chunk, used = torch.empty(0, dtype=torch.uint8), 0
        for key, tensor in missing.items():
            size = _aligned_size(tensor)
            if used + size > len(chunk):
                chunk, used = self._memory(max(size, min(CHUNK, left))), 0
            values = chunk[used : used + tensor.numel() * tensor.element_size()]
            self._places[key] = values.view(tensor.dtype).view(tensor.shape)
            used += size
            left -= size

    def _memory(self, size: int) -> Tensor:
        if self._pinned:
            try:
                return torch.empty(size, dtype=torch.uint8, pin_memory=True)
            except RuntimeError as error:
                logger.warning("checkpoints are copied slowly: no memory can be pinned (%s)", error)
                self._pinned = False
        return torch.empty(size, dtype=torch.uint8)


def _aligned_size(tensor: Tensor) -> int:
    """Bytes of a whole tensor, up to where the next one begins."""
    return -(-tensor.numel() * tensor.element_size() // _ALIGNMENT) * _ALIGNMENT


class CheckpointSaver:
    """Saves checkpoints of a training in a thread, one at a time. A context manager.

    If the training fails, the save under way is finished; if it is interrupted at once, that
    checkpoint stays unpublished. Only the main process writes.

    Args:
        checkpoints: of the training.
        state: what is trained.
        device: that it is on.
        world: the processes.
        log: which checkpoints continue; it is on the disk before they are published.
        record: called with the seconds of each save, ``save_seconds`` from the copy to the
            published checkpoint, and ``save_wait_seconds`` while the training waited for it.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        state: TrainingState,
        device: torch.device,
        world: World,
        log: MetricsLog | None,
        record: Callable[..., None],
    ):
        self._checkpoints, self._state, self._world = checkpoints, state, world
        self._log, self._record = log, record
        self._copy = HostCopy(device)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._seconds: dict[str, float] = {}

    def save(self, step: int) -> None:
        """Copy the state after ``step`` steps and begin to write it; every process must call it.

        Waits for the save before.

        Raises:
            WriteError: the checkpoint before could not be written.
        """
        asked = time.monotonic()
        self.finish()
        start = time.monotonic()
        files = self._copy.take(self._state.tensors(), self._world)
        if not self._world.is_main:
            return
        losses, window = deque(self._state.losses), list(self._state.window)
        state = replace(self._state, losses=losses, window=window)
        self._seconds = {"save_wait_seconds": round(time.monotonic() - asked, 3)}
        self._thread = threading.Thread(
            target=self._write, args=(step, state, files, start), name=THREAD, daemon=True
        )
        self._thread.start()

    def _write(self, step: int, state: TrainingState, files: Files, start: float) -> None:
        assert self._log is not None
        try:
            self._log.sync()
            self._checkpoints.save(step, state, files)
            self._seconds["save_seconds"] = round(time.monotonic() - start, 3)
        except BaseException as error:
            self._error = error

    def poll(self) -> None:
        """Take note of a save that has ended, without waiting.

        Raises:
            WriteError: the checkpoint could not be written.
        """
        if self._thread is not None and not self._thread.is_alive():
            self._wait()

    def finish(self) -> None:
        """Wait for the save under way; every process must call it.

        Raises:
            WriteError: the checkpoint could not be written.
        """
        self._world.on_main(self._wait)

    def _wait(self) -> None:
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        if (error := self._error) is not None:
            self._error = None
            raise error
        self._record(**self._seconds)

    def describe_newest(self) -> str:
        """The newest checkpoint, for a message about a training that failed in every process."""
        return self._world.on_main(self._describe_newest)

    def _describe_newest(self) -> str:
        if self._thread is not None:
            self._thread.join()
        return self._checkpoints.describe_newest()

    def __enter__(self) -> CheckpointSaver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is not None and not isinstance(error, KeyboardInterrupt):
                with suppress(Exception), self._world.working_alone():
                    self._wait()  # the first error matters more than its own
        finally:
            self._checkpoints.abandon()
