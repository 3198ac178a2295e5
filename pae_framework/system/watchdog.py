"""Acts when a block of code runs too long, whatever the code does. No torch."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Action = Callable[[], None]


class Watchdog:
    """One thread for all blocks: to start a thread for each takes longer than most of them run.

    A forked process has its own, which watches no block of its parent.
    """

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._blocks: list[deque[tuple[float, Action]]] = []
        self._wakes = math.inf
        self._is_started = False

    @contextmanager
    def watching(self, *steps: tuple[float, Action]) -> Iterator[None]:
        """Call each action in the watchdog's thread, so many seconds after the block started.

        Args:
            *steps: seconds, ascending, and actions; those after the end of the block are left out.
        """
        now = time.monotonic()
        block = deque((now + seconds, action) for seconds, action in steps)
        with self._changed:
            self._blocks.append(block)
            if not self._is_started:
                threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
                self._is_started = True
            elif block[0][0] < self._wakes:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._blocks = [other for other in self._blocks if other is not block]

    def _watch(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for block in self._blocks:
                    while block and block[0][0] <= now:
                        block.popleft()[1]()
                self._wakes = min(
                    (block[0][0] for block in self._blocks if block), default=math.inf
                )
                self._changed.wait(None if math.isinf(self._wakes) else self._wakes - now)
