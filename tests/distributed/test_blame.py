"""Which of several failures is shown, and which process is named if none said a word."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.distributed as dist

from pae_framework.distributed import blame
from pae_framework.distributed.blame import beat, first_failure, seen_key
from pae_framework.distributed.failure import Failure
from pae_framework.distributed.group import Seen
from pae_framework.distributed.link import Link
from pae_framework.errors import DataError, RunError
from pae_framework.world import World

LOST = dist.DistNetworkError("Connection closed by peer")


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> list[Link]:
    monkeypatch.setattr(blame, "REASON_SECONDS", 0.2)
    store = dist.HashStore()
    return [Link(store, rank, 3) for rank in range(3)]


def test_an_own_error_is_told_to_the_others(links: list[Link]) -> None:
    failure = first_failure(DataError("no image"), links[1])
    assert (failure.rank, failure.message, failure.exit_code) == (1, "no image", 2)
    assert links[0].failure() == failure


def test_a_consequence_is_not_the_reason(links: list[Link]) -> None:
    reason = Failure(2, "node2", "out of memory")
    links[2].fail(reason)
    assert first_failure(LOST, links[0]) == reason


def test_the_first_of_two_errors_is_shown(links: list[Link]) -> None:
    first = first_failure(RunError("first"), links[2])
    assert first_failure(RunError("second"), links[0]) == first


@pytest.mark.parametrize("silent", [0, 1, 2])
def test_a_process_that_met_no_error_is_named_if_none_says_why(
    links: list[Link], silent: int
) -> None:
    seen = Seen.here(World(), torch.device("cpu"))
    links[silent].post(seen_key(silent), seen)
    others = [link for link in links if link.rank != silent]
    others[1].post(
        f"cut off/{others[1].rank}", Failure(others[1].rank, "there", "NCCL: no memory")
    )  # it waits for the reason at the same time
    failure = first_failure(LOST, others[0])
    assert (failure.rank, failure.host) == (silent, seen.host)
    assert f"rank {others[1].rank} on there met: NCCL: no memory" in failure.message
    assert links[silent].failure() == failure


def test_a_process_that_beats_on_has_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a ring, only the neighbors of a process that ended lose contact at once."""
    monkeypatch.setattr(blame, "REASON_SECONDS", 0.3)
    store = dist.HashStore()
    links = [Link(store, rank, 4) for rank in range(4)]
    for link in links[1:]:
        beat(link)
    links[2].post("cut off/2", Failure(2, "there", "lost"))
    later = threading.Timer(0.1, lambda: beat(links[1]))
    later.start()
    assert first_failure(LOST, links[0]).rank == 3
    later.join()


def test_a_network_that_all_lost_is_not_one_process_fault(links: list[Link]) -> None:
    for link in links[1:]:
        link.post(f"cut off/{link.rank}", Failure(link.rank, "there", "lost"))
    failure = first_failure(LOST, links[0])
    assert failure.rank == 0
    assert "Connection closed by peer" in failure.message
