"""Batches of images that all processes of a stage work on, at the request of the main one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pae_framework.evaluation.stored_rows import StoredRows
from pae_framework.world import World

BATCH = 250

BatchFunction = Callable[..., tuple[Tensor, ...]]
"""Results for a batch (B, ...) and further arguments: tensors (B, ...)."""


@dataclass(frozen=True)
class _Request:
    """To apply the function ``name`` to one batch per process, ``rounds`` times."""

    name: str
    rounds: int
    arguments: tuple[str, ...]


class SharedBatches:
    """Functions of batches, which the main process applies to many batches with the help of others.

    The others only :meth:`serve`, so nothing but the functions has to be the same in all processes.
    The batches are those of one process, so the results are the same bits.

    Args:
        world: the processes; the others must serve.
        functions: by name, the same in all processes.
        folder: where results lie that are too large for memory.
    """

    def __init__(
        self,
        world: World,
        functions: Mapping[str, BatchFunction],
        folder: Callable[[], Path],
    ):
        self._world, self._functions, self._folder = world, functions, folder

    def map(self, name: str, rows: Tensor, *arguments: str) -> tuple[Tensor, ...]:
        """Apply a function to rows (M, ...), batch by batch. In the main process.

        Args:
            name: of the function.
            rows: the rows.
            arguments: further arguments of the function, in every process.

        Returns:
            The results (M, ...), on the CPU; large ones are mapped from a file.

        Raises:
            WriteError: there is no space for them.
        """
        with closing(self.stream(name, rows.split(BATCH), *arguments)) as results:
            return self.join(results, len(rows))

    def join(self, results: Iterable[Sequence[Tensor]], count: int) -> tuple[Tensor, ...]:
        """The results (M, ...) of ``count`` rows that come batch by batch, as :meth:`map` gives."""
        columns: list[StoredRows] = []
        for result in results:
            columns = columns or [StoredRows(count, self._folder) for _ in result]
            for column, part in zip(columns, result, strict=True):
                column.append(part)
        return tuple(column.tensor() for column in columns)

    def stream(
        self, name: str, batches: Sequence[Tensor], *arguments: str
    ) -> Generator[list[Tensor], None, None]:
        """The results of a function for each batch, in order; arguments as in :meth:`map`.

        When the iterator is closed early, the other processes are told no more batches.
        """
        size = self._world.size
        rounds = deque(batches[start : start + size] for start in range(0, len(batches), size))
        request = _Request(name, len(rounds), arguments)
        self._world.on_main(lambda: request)
        try:
            while rounds:
                yield from self._round(request, rounds.popleft())
        except GeneratorExit:
            for _ in rounds:
                self._round(request, ())
            raise

    def serve(self) -> None:
        """In a process other than the main one, help until that one calls :meth:`end`."""
        while (request := self._next_request()) is not None:
            for _ in range(request.rounds):
                self._round(request, ())

    def end(self) -> None:
        """Let the other processes go. In the main process."""
        self._world.on_main(lambda: None)

    def _next_request(self) -> _Request | None:
        request: _Request | None = self._world.on_main(lambda: None)
        return request

    @torch.no_grad()
    def _round(self, request: _Request, batches: Sequence[Tensor]) -> list[list[Tensor]]:
        """The results of one batch per process, in the order of the batches."""
        own = self._world.scatter(batches)
        function = self._functions[request.name]
        results = () if own is None else function(own, *request.arguments)
        return [result for result in self._world.gather(results) if result]
