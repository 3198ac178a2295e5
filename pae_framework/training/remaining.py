"""How long the rest of a stage takes, estimated from its progress."""

from __future__ import annotations

from collections import deque

PERIOD = 60.0
"""The speed is that of the last so many seconds, and at least that between the last two updates."""


class RemainingTime:
    """Estimates the time until a stage ends. Between updates the estimate counts down.

    Args:
        total: number of steps or images.
        done: how many of them are done at the start.
        now: time of the start, s.
    """

    def __init__(self, total: int, done: int, now: float):
        self.total = total
        self._seen = deque([(now, done)])

    def update(self, done: int, now: float) -> None:
        """Note that ``done`` are done at the time ``now``, s."""
        if done <= self._seen[-1][1]:
            return
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - PERIOD:
            self._seen.popleft()

    @property
    def speed(self) -> float | None:
        """Steps or images per second; None until some are done."""
        (start, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / max(end - start, 1e-9) if last > first else None

    def seconds(self, now: float) -> float | None:
        """Seconds from ``now`` until all are done; None until some are done."""
        if (speed := self.speed) is None:
            return None
        end, done = self._seen[-1]
        newest = done - self._seen[-2][1]  # no more than this is expected before the next update
        return max(0.0, self.total - done - min(speed * (now - end), newest)) / speed
