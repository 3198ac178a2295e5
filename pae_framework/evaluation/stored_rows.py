"""Tensors that come batch by batch: small ones in memory, large ones in a file without a name."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from pae_framework.system.file_errors import require_space, writing
from pae_framework.system.files import make_folder

IN_MEMORY = 1 << 24
"""Bytes of the largest tensor that is kept in memory."""


class StoredRows:
    """Collects batches of rows into one tensor, whose memory does not grow with their number.

    A large tensor is mapped from a file that the system removes when the tensor is gone, or the
    process ends.

    Args:
        count: number M of rows.
        folder: where a large tensor lies.
    """

    def __init__(self, count: int, folder: Callable[[], Path]):
        self._count, self._folder = count, folder
        self._in_memory: list[Tensor] = []
        self._file: IO[bytes] | None = None
        self._done = 0

    def append(self, rows: Tensor) -> None:
        """Add rows (B, ...) on the CPU, of the shape and type of those before.

        Raises:
            WriteError: there is no space for them.
        """
        if self._done == 0:
            self._begin(rows)
        if self._file is None:
            self._in_memory.append(rows)
        else:
            with writing(self._folder(), rows.nbytes):
                self._file.write(rows.contiguous().numpy().data)
        self._done += len(rows)

    def tensor(self) -> Tensor:
        """All rows (M, ...). Writing to the tensor does not change the file."""
        assert self._done == self._count, f"{self._done} of {self._count} rows"
        if self._file is None:
            return torch.cat(self._in_memory)
        with writing(self._folder()), self._file as file:
            file.flush()
            mapped = np.memmap(file, self._type, mode="c", shape=tuple(self._shape))
        return torch.from_numpy(mapped)

    def _begin(self, rows: Tensor) -> None:
        self._shape = (self._count, *rows.shape[1:])
        size = self._count * rows[:1].nbytes
        if size <= IN_MEMORY:
            return
        self._type = rows[:0].numpy().dtype
        folder = self._folder()
        make_folder(folder)
        require_space(folder, size)
        with writing(folder, size):
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
