"""The processes that do a stage together: what each of them does, and how they agree.

Code of a stage is written once, against :class:`World`. With one process nothing is communicated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from torch import Tensor

from pae_framework.seeding import Rows

T = TypeVar("T")


class SharedItems:
    """Numbers of items of work that processes share; each takes the next free one when it is idle.

    Iterating yields the numbers that this process has to do. It may ask for several before it has
    done the first, and calls :meth:`finish` for each that is done.

    Args:
        items: number of items.
    """

    def __init__(self, items: int):
        self.items = items
        self._taken = self._done = 0
        self._stopped = False

    def __iter__(self) -> Iterator[int]:
        while not self.stopped and self._taken < self.items:
            self._taken += 1
            yield self._taken - 1

    def finish(self) -> None:
        """Count one item as done."""
        self._done += 1

    @property
    def done(self) -> int:
        """Number of items that are done, by all processes."""
        return self._done

    @property
    def stopped(self) -> bool:
        """Whether a process has called :meth:`stop`."""
        return self._stopped

    def stop(self) -> None:
        """Start no further item, in any process."""
        self._stopped = True

    def join(self, show: Callable[[int], None]) -> None:
        """Say that this process does no more items; the main one waits until all have said so.

        Args:
            show: called with the number of items done, whenever it may have changed.
        """


class World:
    """The processes that do a stage together. This class is the world of one process.

    Every process calls the same methods in the same order, unless stated otherwise.

    Attributes:
        rank: index of this process; 0 is the main process, which writes records, checkpoints and
            results, and shows progress.
        size: number of processes.
        local_rank: index of this process among those of its machine.
        local_size: number of processes on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the main process."""
        return self.rank == 0

    def working_alone(self) -> AbstractContextManager[None]:
        """The main process does work in which a failure elsewhere must not end it."""
        return nullcontext()

    def rows(self, total: int) -> Rows:
        """The rows of a batch of ``total`` rows that this process has. Communicates nothing."""
        return Rows.of(self.rank, self.size, total)

    def sum(self, values: Tensor) -> Tensor:
        """The element-wise sum of ``values`` over all processes; they have the same shape."""
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors with those of the main process."""

    def scatter(self, values: Sequence[Tensor]) -> Tensor | None:
        """This process' value, by rank, of those that the main process gives. On the CPU.

        Args:
            values: in the main process at most one per process, the others get None; in other
                processes ignored.
        """
        return values[0] if values else None

    def gather(self, values: Sequence[Tensor]) -> list[list[Tensor]]:
        """In the main process, each process' tensors by rank, on the CPU; elsewhere no tensors.

        They may differ in number and shape.
        """
        return [list(values)]

    def on_main(self, work: Callable[[], T]) -> T:
        """The result of ``work()``, which only the main process calls.

        However long it takes, the other processes wait for it outside of any collective, whose
        time is limited. The result must pickle.
        """
        return work()

    def share(self, items: int) -> SharedItems:
        """Items of work, each to be done by one of the processes."""
        return SharedItems(items)


ONE_PROCESS = World()
