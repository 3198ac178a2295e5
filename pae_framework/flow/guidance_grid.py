"""A grid of guidance settings: scale, interval and shift. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

from pae_framework.errors import UsageError
from pae_framework.flow.flow_settings import SampleSettings

Value = TypeVar("Value")
Interval = tuple[float, float]
MOST = 1e6
SMALLEST_SHIFT = 1e-6


@dataclass(frozen=True)
class GuidancePoint:
    """One setting; ``shift`` None: that of the recipe. At scale 1 there is no guidance."""

    scale: float
    interval: Interval
    shift: float | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """What a recipe's ``sample`` section changes for it."""
        guidance = {"scale": self.scale, "interval": list(self.interval)}
        if self.scale == 1:
            guidance = {"scale": self.scale, "autoguidance": None}
        shift = {} if self.shift is None else {"shift": self.shift, "shift_base": None}
        return {"guidance": guidance, **shift}

    def settings(self, base: SampleSettings) -> SampleSettings:
        """The settings of samples at this point."""
        values = base.model_dump()
        guidance = {**values["guidance"], **self.changes["guidance"]}
        return SampleSettings.model_validate({**values, **self.changes, "guidance": guidance})


def grid_points(
    scales: Sequence[float], intervals: Sequence[Interval], shifts: Sequence[float | None]
) -> list[GuidancePoint]:
    """Every combination; scale 1 has one interval, because no interval has an effect there."""
    points = (
        GuidancePoint(scale, (0.0, 1.0) if scale == 1 else interval, shift)
        for shift, scale, interval in product(shifts, scales, intervals)
    )
    return list(dict.fromkeys(points))


def parse_scales(text: str) -> list[float]:
    """``1,1.5,2``: guidance scales.

    Raises:
        UsageError: one is no such number, or is there twice.
    """
    return _numbers("--scales", text, 1, "numbers from 1 to 1e6, such as 1,1.5,2")


def parse_shifts(text: str) -> list[float]:
    """``0.4,1``: shifts of times.

    Raises:
        UsageError: one is no such number, or is there twice.
    """
    return _numbers("--shifts", text, SMALLEST_SHIFT, "numbers from 1e-6 to 1e6, such as 0.4,1")


def parse_intervals(text: str) -> list[Interval]:
    """``0:1,0.1:0.9``: intervals of times with guidance.

    Raises:
        UsageError: one has not 0 <= low < high <= 1, or is there twice.
    """
    expected = "intervals low:high with 0 <= low < high <= 1, such as 0:1,0.1:1"
    found: list[Interval] = []
    for word in text.split(","):
        numbers = [_number(part) for part in word.split(":")]
        if len(numbers) != 2 or None in numbers:
            raise UsageError(f"--intervals: {word!r}: expected {expected}")
        low, high = (number or 0.0 for number in numbers)
        if not 0 <= low < high <= 1:
            raise UsageError(f"--intervals: {word!r}: expected {expected}")
        found.append((low, high))
    return _distinct("--intervals", found)


def _numbers(option: str, text: str, least: float, expected: str) -> list[float]:
    found = []
    for word in text.split(","):
        number = _number(word)
        if number is None or not least <= number <= MOST:
            raise UsageError(f"{option}: {word!r}: expected {expected}")
        found.append(number)
    return _distinct(option, found)


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _distinct(option: str, values: list[Value]) -> list[Value]:
    for value in values:
        if values.count(value) > 1:
            raise UsageError(f"{option}: {value} is there twice")
    return values
