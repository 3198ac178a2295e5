"""Actions on blocks that run too long, by one thread for all blocks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest

from pae_framework.system.watchdog import Watchdog

LONG = 60.0


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_actions_come_in_order_and_end_with_the_block() -> None:
    done: list[str] = []
    steps = [(0.01 * i, lambda word=word: done.append(word)) for i, word in enumerate("abc", 1)]
    with Watchdog().watching(*steps, (LONG, lambda: done.append("late"))):
        wait_for(lambda: len(done) == 3)
    assert done == ["a", "b", "c"]


def test_a_block_that_ended_is_left_alone_and_others_are_not() -> None:
    watchdog, done = Watchdog(), []
    with watchdog.watching((0.05, lambda: done.append("outer"))):
        with watchdog.watching((0.01, lambda: done.append("inner"))):
            pass
        wait_for(lambda: done)
    assert "outer" in done


def test_an_earlier_end_wakes_a_thread_that_waits_for_a_later_one() -> None:
    watchdog, done = Watchdog(), threading.Event()
    with watchdog.watching((LONG, done.set)), watchdog.watching((0.01, done.set)):
        assert done.wait(LONG / 2)


def test_many_blocks_need_one_thread() -> None:
    before, watchdog = threading.active_count(), Watchdog()
    for _ in range(50):
        with watchdog.watching((LONG, lambda: None)):
            assert threading.active_count() == before + 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot fork here")
def test_a_forked_process_watches_its_own_blocks_only() -> None:
    watchdog, done = Watchdog(), []
    with watchdog.watching((LONG, lambda: done.append("of the parent"))):
        if (child := os.fork()) == 0:
            own = threading.Event()
            with watchdog.watching((0.01, own.set)):
                os._exit(0 if own.wait(LONG) and not done else 1)
        assert os.waitpid(child, 0)[1] == 0
