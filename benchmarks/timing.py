"""Time implementations of the same work alternately, so that drift affects all equally."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

_clock = time.perf_counter


def now() -> float:
    """Seconds of the clock that benchmarks use."""
    return _clock()


def measure_processor_time() -> None:
    """Measure the processor's time in this process: for a machine that does other work, too."""
    global _clock
    _clock = time.process_time


Way = Callable[[], float]
"""Does the work once or a few times; returns seconds per repetition."""


@dataclass(frozen=True)
class Timing:
    """Median seconds per repetition, and median over rounds of the ratio to the baseline."""

    name: str
    seconds: float
    ratio: float
    spread: tuple[float, float]
    """Smallest and largest ratio over rounds."""
    confidence: tuple[float, float] | None
    """Interval that holds the median ratio with 95 %; none with fewer than six rounds."""
    fastest: float
    """Smallest time over the baseline's smallest: what other work on the machine disturbs least."""


def in_turn(ways: Mapping[str, Way], rounds: int, baselines: int = 1) -> list[Timing]:
    """Time each way once per round, after one round of warm-up.

    The baseline of a round is the slowest of the first ``baselines`` ways.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            taken = way()
            if number:
                seconds[name].append(taken)
    base = [max(taken) for taken in zip(*list(seconds.values())[:baselines], strict=True)]
    found = []
    for name, taken in seconds.items():
        ratios = [mine / first for mine, first in zip(taken, base, strict=True)]
        found.append(
            Timing(
                name,
                statistics.median(taken),
                statistics.median(ratios),
                (min(ratios), max(ratios)),
                median_interval(ratios),
                min(taken) / min(base),
            )
        )
    return found


def median_interval(values: list[float]) -> tuple[float, float] | None:
    """Interval that holds the median with at least 95 %, from order statistics.

    Each value lies below the median with probability 1/2, so the k-th smallest and the k-th
    largest enclose it unless a binomial (n, 1/2) variable is below k or above n - k.
    """
    count, ordered = len(values), sorted(values)
    outside, rank = 0.0, 0
    while (outside := outside + 2 * math.comb(count, rank) / 2**count) <= 0.05:
        rank += 1
    return (ordered[rank - 1], ordered[-rank]) if rank else None


def repeated(work: Callable[[], object], times: int, device: torch.device) -> Way:
    """A way that does ``work`` a few times and waits for the device at the end."""

    def way() -> float:
        _wait(device)
        start = now()
        for _ in range(times):
            work()
        _wait(device)
        return (now() - start) / times

    return way


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
