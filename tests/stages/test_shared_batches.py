"""Functions applied to batches of images by several processes, here threads of one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor

from pae_framework.evaluation.shared_batches import BATCH, SharedBatches
from pae_framework.world import ONE_PROCESS, World

SECONDS = 20


class Thread(World):
    """One of several threads in place of processes."""

    def __init__(self, rank: int, size: int, shared: dict[str, Any]):
        self.rank, self.size, self._shared = rank, size, shared

    def scatter(self, values):
        if self.is_main:
            for rank, queue in enumerate(self._shared["batches"]):
                queue.put(values[rank] if rank < len(values) else None)
        return self._shared["batches"][self.rank].get(timeout=SECONDS)

    def gather(self, values):
        self._shared["gathered"][self.rank] = list(values)
        self._shared["barrier"].wait()
        gathered = list(self._shared["gathered"])
        self._shared["barrier"].wait()
        return gathered

    def on_main(self, work):
        if self.is_main:
            result = work()
            for queue in self._shared["results"][1:]:
                queue.put(result)
            return result
        return self._shared["results"][self.rank].get(timeout=SECONDS)


def worlds(size: int) -> list[World]:
    if size == 1:
        return [ONE_PROCESS]
    shared: dict[str, Any] = {
        "batches": [Queue() for _ in range(size)],
        "results": [Queue() for _ in range(size)],
        "gathered": [None] * size,
        "barrier": Barrier(size, timeout=SECONDS),
    }
    return [Thread(rank, size, shared) for rank in range(size)]


class Doubling:
    """Notes the rows of each batch that it sees; results depend on the batch as a whole."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append(rows.tolist())
        return 2 * rows, torch.full((len(rows),), len(rows))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [1, BATCH, BATCH + 1, 4 * BATCH, 5 * BATCH - 1])
def test_each_batch_is_computed_once_by_the_processes_in_turn(size: int, count: int) -> None:
    functions = [Doubling() for _ in range(size)]
    shared = [
        SharedBatches(world, {"double": function, "other": lambda rows: (rows,)}, Path)
        for world, function in zip(worlds(size), functions, strict=True)
    ]
    with ThreadPoolExecutor(size) as pool:
        others = [pool.submit(one.serve) for one in shared[1:]]
        rows = torch.arange(count)
        doubled, sizes = shared[0].map("double", rows)
        (same,) = shared[0].map("other", rows)  # another request follows
        shared[0].end()
        for other in others:
            other.result(timeout=SECONDS)

    assert torch.equal(doubled, 2 * rows)
    assert torch.equal(same, rows)
    batches = [batch.tolist() for batch in rows.split(BATCH)]
    assert sizes.tolist() == [len(batch) for batch in batches for _ in batch]
    assert [function.seen for function in functions] == [
        batches[rank::size] for rank in range(size)
    ]


@pytest.mark.parametrize("size", [1, 3])
def test_arguments_reach_the_function_in_every_process(size: int) -> None:
    def scaled(rows: Tensor, factor: str, offset: str) -> tuple[Tensor]:
        return (rows * int(factor) + int(offset),)

    shared = [SharedBatches(world, {"scaled": scaled}, Path) for world in worlds(size)]
    with ThreadPoolExecutor(size) as pool:
        others = [pool.submit(one.serve) for one in shared[1:]]
        rows = torch.arange(3 * BATCH)
        (found,) = shared[0].map("scaled", rows, "10", "3")
        shared[0].end()
        for other in others:
            other.result(timeout=SECONDS)
    assert torch.equal(found, rows * 10 + 3)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("wanted", [0, 1, 2, 4])
def test_results_that_nobody_wants_hold_up_no_process(size: int, wanted: int) -> None:
    """Only some of five results are taken; another request follows."""
    functions = [Doubling() for _ in range(size)]
    shared = [
        SharedBatches(world, {"double": function}, Path)
        for world, function in zip(worlds(size), functions, strict=True)
    ]
    rows = torch.arange(5 * BATCH)
    with ThreadPoolExecutor(size) as pool:
        others = [pool.submit(one.serve) for one in shared[1:]]
        results = shared[0].stream("double", rows.split(BATCH))
        taken = [next(results)[0] for _ in range(wanted)]
        results.close()
        (all_of_them, _) = shared[0].map("double", rows)
        shared[0].end()
        for other in others:
            other.result(timeout=SECONDS)
    assert all(torch.equal(part, 2 * rows.split(BATCH)[n]) for n, part in enumerate(taken))
    assert torch.equal(all_of_them, 2 * rows)
