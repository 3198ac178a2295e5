"""How long a stage still takes, by a clock that the test sets."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pae_framework.system.console import PlainConsole
from pae_framework.training.progress import ProgressLine
from pae_framework.training.remaining import PERIOD, RemainingTime


class Clock:
    """Says the time that was set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("seconds", [0.01, 1.0, 29.0, 31.0, 61.0, 600.0, 86_400.0])
def test_an_estimate_is_there_after_one_update_however_slow_updates_are(seconds: float) -> None:
    remaining = RemainingTime(total=10, done=0, now=5.0)
    assert remaining.seconds(5.0) is None
    for done in (1, 2, 3):
        now = 5.0 + done * seconds
        remaining.update(done, now)
        assert remaining.seconds(now) == pytest.approx((10 - done) * seconds)


def test_what_was_done_before_the_start_does_not_count_as_speed() -> None:
    remaining = RemainingTime(total=100, done=90, now=0.0)
    remaining.update(92, 4.0)
    assert remaining.seconds(4.0) == pytest.approx(8 * 2.0)


def test_the_speed_is_that_of_the_last_minute() -> None:
    remaining = RemainingTime(total=1000, done=0, now=0.0)
    remaining.update(1, 100.0)  # a slow start
    for step in range(1, int(PERIOD) + 2):
        remaining.update(1 + step, 100.0 + step)
    done = 2 + int(PERIOD)
    assert remaining.seconds(101.0 + PERIOD) == pytest.approx(1000 - done)


def test_the_estimate_counts_down_until_the_next_update_was_due_and_then_waits() -> None:
    remaining = RemainingTime(total=10, done=0, now=0.0)
    remaining.update(2, 20.0)
    assert [remaining.seconds(20.0 + x) for x in (0, 5, 20, 500)] == pytest.approx([80, 75, 60, 60])


def test_updates_without_progress_leave_the_estimate() -> None:
    remaining = RemainingTime(total=10, done=0, now=0.0)
    remaining.update(0, 3.0)
    assert remaining.seconds(3.0) is None
    remaining.update(5, 10.0)
    remaining.update(5, 11.0)
    assert remaining.seconds(11.0) == pytest.approx(9.0)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1e5)), min_size=1))
def test_an_estimate_stays_and_is_never_negative(updates: list[tuple[int, float]]) -> None:
    remaining = RemainingTime(total=20, done=0, now=0.0)
    now, done, known = 0.0, 0, False
    for steps, seconds in updates:
        now, done = now + seconds, min(20, done + steps)
        remaining.update(done, now)
        known = known or done > 0
        estimate = remaining.seconds(now)
        assert (estimate is not None) == known
        assert estimate is None or estimate >= 0
        assert done < 20 or estimate == 0


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("seconds", [11.0, 45.0, 3600.0])
def test_slow_updates_show_when_stage_and_run_end(terminal: bool, seconds: float) -> None:
    clock, file = Clock(), io.StringIO()
    console = PlainConsole(file=file, force_terminal=terminal, width=100)
    line = ProgressLine("stage", 4, 0, console, later=lambda speed: 6 / speed, clock=clock)
    assert line.left() == ""
    with line:
        for done in (1, 2):
            clock.now += seconds
            line.update(done)
            found = re.fullmatch(r"left (.+) \(run (.+)\)", line.left())
            assert found is not None
            assert [in_seconds(words) for words in found.groups()] == [
                (4 - done) * seconds,
                (4 - done + 6) * seconds,
            ]
    if not terminal:
        shown = [text for text in file.getvalue().splitlines() if text]
        assert [text.partition("  ")[0] for text in shown] == ["stage 1/4", "stage 2/4"]
        assert all("left" in text for text in shown)


@pytest.mark.parametrize("width", [80, 140])
def test_the_bar_of_a_terminal_is_one_line_with_the_time_left(width: int) -> None:
    clock, file = Clock(), io.StringIO()
    console = PlainConsole(file=file, force_terminal=True, width=width, color_system=None)
    with ProgressLine("tokenizer", 160, 0, console, later=lambda _: 600.0, clock=clock) as line:
        clock.now = 40.0
        line.update(20, "loss 0.7728  211 images/s  data wait 0%")
    # (160 - 20) steps of 2 s, and 600 s
    shown = [text for text in file.getvalue().splitlines() if "20/160" in text]
    assert shown
    assert all("left 4:40 (run 14:40)" in text for text in shown)


@pytest.mark.parametrize("later", [None, lambda speed: None], ids=["last stage", "unknown"])
def test_without_a_later_stage_only_this_one_is_shown(later) -> None:
    clock = Clock()
    line = ProgressLine("stage", 2, 0, PlainConsole(file=io.StringIO()), later=later, clock=clock)
    clock.now = 30.0
    line.update(1)
    assert line.left() == "left 30 s"


def in_seconds(words: str) -> float:
    units = {"s": 1, "min": 60, "h": 3600}
    parts = words.split()
    return sum(float(n) * units[unit] for n, unit in zip(parts[::2], parts[1::2], strict=True))
