"""A process that ends without a word is noticed by its missing beats, and no other is."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch.distributed as dist

from pae_framework.distributed.blame import SILENT_SECONDS, Pulses, beat, seen_key
from pae_framework.distributed.link import Link


@dataclass
class Place:
    host: str


@pytest.fixture
def links() -> list[Link]:
    store = dist.HashStore()
    return [Link(store, rank, 3) for rank in range(3)]


def test_processes_that_have_not_begun_are_waited_for(links: list[Link]) -> None:
    pulses = Pulses(links[0])
    assert pulses.silent(0.0) is None
    assert pulses.silent(10 * SILENT_SECONDS) is None


def test_the_process_whose_beats_stop_is_named(links: list[Link]) -> None:
    pulses = Pulses(links[0])
    links[2].post(seen_key(2), Place("node2"))
    for now in (0.0, 1.0):
        beat(links[1])
        beat(links[2])
        assert pulses.silent(now) is None
    beat(links[1])
    assert pulses.silent(1.0 + SILENT_SECONDS) is None  # not longer than that
    beat(links[1])
    failure = pulses.silent(1.1 + SILENT_SECONDS)
    assert failure is not None
    assert (failure.rank, failure.host) == (2, "node2")


def test_a_slow_beat_counts_from_when_it_was_seen(links: list[Link]) -> None:
    pulses = Pulses(links[0])
    for now in (0.0, 0.9 * SILENT_SECONDS, 1.8 * SILENT_SECONDS):
        for link in links[1:]:
            beat(link)
        assert pulses.silent(now) is None
