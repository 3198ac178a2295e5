"""Items of a stage: done once, stopped after those under way, shared by the world's processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pae_framework.errors import DataError, StoppedError
from pae_framework.execution.items import do_items
from pae_framework.system.stopping import STOP_SIGNALS, StopRequest
from pae_framework.world import ONE_PROCESS, SharedItems, World


class OneOfTwo(World):
    """The world of one of two processes; the other one has done every second item."""

    size = 2

    def __init__(self, rank: int):
        self.rank = rank
        self.items: HalfOfItems | None = None

    def share(self, items: int) -> SharedItems:
        self.items = HalfOfItems(items)
        return self.items


class HalfOfItems(SharedItems):
    """Gives the even items to this process."""

    joined = False

    def __iter__(self) -> Iterator[int]:
        for item in range(0, self.items, 2):
            if self.stopped:
                return
            yield item

    @property
    def done(self) -> int:
        return self._done + (self.items // 2 if self.joined else 0)

    def join(self, show: Callable[[int], None]) -> None:
        self.joined = True
        show(self.done)


def do(
    items: int,
    work: Callable[[int], None],
    show: Callable[[int], None] = lambda done: None,
    world: World = ONE_PROCESS,
) -> None:
    context: Any = SimpleNamespace(world=world)
    do_items(context, work, items, "shards", show)


@pytest.mark.parametrize("items", [0, 1, 5])
def test_one_process_does_every_item_in_order_and_shows_how_many_are_done(items: int) -> None:
    done: list[int] = []
    shown: list[tuple[int, int]] = []
    do(items, done.append, lambda count: shown.append((count, len(done))))
    assert done == list(range(items))
    assert shown == [(count, count) for count in range(1, items + 1)]


@pytest.mark.parametrize("sent", STOP_SIGNALS)
@pytest.mark.parametrize("moment", ["work", "show"])
def test_a_signal_stops_after_the_item_under_way(sent: signal.Signals, moment: str) -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if moment == "work" and item == 2:
            os.kill(os.getpid(), sent)
        done.append(item)

    def show(count: int) -> None:
        if moment == "show" and count == 3:
            os.kill(os.getpid(), sent)

    with pytest.raises(StoppedError, match="3 of 40 shards"):
        do(40, work, show)
    assert done == [0, 1, 2]


def test_a_signal_in_the_last_item_stops_nothing() -> None:
    do(3, lambda item: os.kill(os.getpid(), signal.SIGTERM) if item == 2 else None)


def test_a_request_from_before_starts_no_item() -> None:
    done: list[int] = []
    with StopRequest():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StoppedError, match="0 of 4"):
            do(4, done.append)
    assert done == []


def test_an_error_of_an_item_ends_the_work() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 2:
            raise DataError("2.png: cannot be read")
        done.append(item)

    with pytest.raises(DataError, match=r"2\.png"):
        do(5, work)
    assert done == [0, 1]


def test_the_main_process_waits_for_the_others_and_looks_at_every_item() -> None:
    """What another machine wrote may not be visible here yet: then it is done again."""
    done: list[int] = []
    shown: list[int] = []
    do(6, done.append, shown.append, OneOfTwo(0))
    assert done == [0, 2, 4, *range(6)]
    assert shown == [1, 2, 3, 6]


def test_another_process_does_its_items_and_goes() -> None:
    done: list[int] = []
    do(6, done.append, world=OneOfTwo(1))
    assert done == [0, 2, 4]


def test_a_signal_to_another_process_stops_all_and_is_no_error_there() -> None:
    """The main process says what was done."""
    world = OneOfTwo(1)
    done: list[int] = []

    def work(item: int) -> None:
        done.append(item)
        os.kill(os.getpid(), signal.SIGUSR1)

    do(40, work, world=world)
    assert done == [0]
    assert world.items is not None
    assert world.items.stopped
