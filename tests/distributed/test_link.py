"""Messages between processes, here between threads, through a real store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import pytest
import torch.distributed as dist

from pae_framework.distributed.failure import Failure, LostContactError, RankError
from pae_framework.distributed.group import GroupWorld
from pae_framework.distributed.link import Link, own_store
from pae_framework.distributed.place import Place
from pae_framework.world import SharedItems, World

T = TypeVar("T")
SIZE = 3


@pytest.fixture
def links() -> list[Link]:
    """A link of each process, each with a client of its own."""
    store = own_store()
    clients = [dist.TCPStore("127.0.0.1", store.port, is_master=False) for _ in range(SIZE - 1)]
    return [Link(one, rank, SIZE) for rank, one in enumerate((store, *clients))]


def in_threads(work: Callable[[int], T]) -> list[T]:
    """The results of ``work(rank)``, all at once."""
    with ThreadPoolExecutor(SIZE) as pool:
        return [future.result(20) for future in [pool.submit(work, rank) for rank in range(SIZE)]]


def test_a_message_arrives_as_it_was_sent(links: list[Link]) -> None:
    assert not links[2].has("key")
    links[0].post("key", {"rows": (1, 2), "none": None})
    assert links[1].wait("key") == {"rows": (1, 2), "none": None}
    assert links[2].has("key")
    assert links[2].read("key") == {"rows": (1, 2), "none": None}


def test_waiting_lasts_until_the_message_comes(links: list[Link]) -> None:
    looks = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[str] = pool.submit(links[1].wait, "late", "rank 0", looks.set)
        assert looks.wait(20)
        assert not waiting.done()
        links[0].post("late", "here")
        assert waiting.result(20) == "here"


def test_waiting_ends_when_any_process_fails(links: list[Link]) -> None:
    looks = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(links[1].wait, "never", "rank 0", looks.set)
        assert looks.wait(20)
        links[2].fail(Failure(2, "node2", "out of memory", 4))
        with pytest.raises(RankError, match="rank 2 on node2: out of memory") as caught:
            waiting.result(20)
    assert caught.value.exit_code == 4


def test_the_first_failure_counts(links: list[Link]) -> None:
    assert links[0].failure() is None
    links[0].raise_failure()
    first = Failure(2, "node2", "out of memory")
    links[2].fail(first)
    links[1].fail(Failure(1, "node1", "connection reset"))
    assert [link.failure() for link in links] == [first] * SIZE


def test_counters_add_up(links: list[Link]) -> None:
    values = in_threads(lambda rank: [links[rank].add("count", 1) for _ in range(20)])
    assert sorted(value for some in values for value in some) == list(range(1, 20 * SIZE + 1))
    assert links[0].add("count", 0) == 20 * SIZE


def test_a_lost_store_is_a_lost_contact() -> None:
    store = own_store()
    client = Link(dist.TCPStore("127.0.0.1", store.port, is_master=False), 1, 2)
    client.post("key")
    del store  # rank 0 ends
    for call in (
        lambda: client.has("key"),
        lambda: client.post("key"),
        lambda: client.add("count", 1),
        lambda: client.wait("other"),
        lambda: client.fail(Failure(1, "node1", "reason")),
    ):
        with pytest.raises(LostContactError, match="rank 0"):
            call()


def worlds(links: list[Link]) -> list[World]:
    return [GroupWorld(Place(rank, SIZE, rank, SIZE), link) for rank, link in enumerate(links)]


def test_only_the_main_process_works_and_all_have_the_result(links: list[Link]) -> None:
    all_worlds, callers = worlds(links), []

    def call(rank: int) -> list[int]:
        def work(number: int) -> int:
            callers.append(rank)
            return 10 * number

        return [all_worlds[rank].on_main(lambda n=n: work(n)) for n in range(4)]

    assert in_threads(call) == [[0, 10, 20, 30]] * SIZE
    assert callers == [0] * 4


def test_the_others_learn_that_the_work_of_the_main_process_failed(links: list[Link]) -> None:
    all_worlds = worlds(links)

    def broken() -> None:
        raise OSError("no space left")

    def call(rank: int) -> str:
        try:
            all_worlds[rank].on_main(broken)
        except OSError as error:
            links[rank].fail(Failure.of(error, rank))  # as the main process does
            return "failed"
        except RankError as error:
            return str(error)
        return "no error"

    own, *others = in_threads(call)
    assert own == "failed"
    assert all("rank 0" in told and "no space left" in told for told in others)


def test_each_item_is_done_once_and_all_are_counted(links: list[Link]) -> None:
    all_worlds, shown = worlds(links), []

    def work(rank: int) -> list[int]:
        items = all_worlds[rank].share(25)
        mine = []
        for item in items:
            mine.append(item)
            items.finish()
        items.join(shown.append)
        return mine

    done = in_threads(work)
    assert sorted(item for mine in done for item in mine) == list(range(25))
    again = in_threads(work)  # a second share begins at 0
    assert sorted(item for mine in again for item in mine) == list(range(25))
    assert all(0 <= count <= 25 for count in shown)


def test_no_item_is_started_after_a_stop(links: list[Link]) -> None:
    shares: list[SharedItems] = [world.share(100) for world in worlds(links)]
    first, other = iter(shares[0]), iter(shares[1])
    assert {next(first), next(other)} == {0, 1}
    shares[2].stop()
    assert all(share.stopped for share in shares)
    assert list(first) == list(other) == list(shares[2]) == []
    assert shares[0].done == 0  # those that were taken count once they are finished
    shares[1].finish()
    assert shares[0].done == 1


def test_joining_waits_for_the_last_item_of_every_process(links: list[Link]) -> None:
    shares = [world.share(2) for world in worlds(links)]
    next(iter(shares[1]))
    assert (list(shares[0]), list(shares[2])) == ([1], [])
    shares[0].finish()
    shares[2].join(lambda done: None)
    looks = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        joining = pool.submit(shares[0].join, lambda done: looks.set())
        assert looks.wait(20)
        assert not joining.done()
        shares[1].finish()
        shares[1].join(lambda done: None)  # one that is not the main process does not wait
        joining.result(20)
    assert shares[0].done == 2


def test_a_process_takes_no_item_after_another_failed(links: list[Link]) -> None:
    items = iter(worlds(links)[1].share(5))
    next(items)
    links[2].fail(Failure(2, "node2", "out of memory"))
    with pytest.raises(RankError, match="out of memory"):
        next(items)
