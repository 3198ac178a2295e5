"""A plugin that follows a run can neither stop nor delay it, whatever its hooks do."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pluggy
import pytest

from pae_framework import hookimpl
from pae_framework.launch.hook_calls import HookCalls
from pae_framework.system.standard_streams import lasting_output

STARTED, FINISHED, LOGGED = "pae_stage_started", "pae_stage_finished", "pae_metrics_logged"
LONG = 120.0
"""Seconds that no test waits in full."""


@pytest.fixture
def blocked() -> Iterator[threading.Event]:
    """What a hook that hangs waits for; released when the test ends."""
    event = threading.Event()
    yield event
    event.set()


def arguments(**more: object) -> dict[str, object]:
    return {"run": "RUN", "stage": "STAGE", "metrics": 1, **more}


def following(**hooks: Callable[..., None]) -> HookCalls:
    marked = {name: hookimpl(function) for name, function in hooks.items()}
    return HookCalls("plugin acme (acme-dist)", SimpleNamespace(**marked))


def tell(calls: HookCalls, *hooks: str) -> None:
    for hook in hooks:
        names = {STARTED: {"run", "stage"}, FINISHED: {"run", "stage"}}.get(hook)
        values = arguments()
        calls.call(hook, {name: values[name] for name in names or values})


def test_an_implementation_takes_any_of_the_arguments() -> None:
    got: list[object] = []

    def none() -> None:
        got.append(())

    def some(stage: str) -> None:
        got.append(stage)

    def all_of_them(run: str, stage: str, metrics: int) -> None:
        got.append((run, stage, metrics))

    calls = following(
        pae_stage_started=none, pae_stage_finished=some, pae_metrics_logged=all_of_them
    )
    tell(calls, STARTED, LOGGED, FINISHED)
    calls.end(LONG)
    assert got == [(), ("RUN", "STAGE", 1), "STAGE"]


def test_an_argument_that_a_hook_does_not_have_is_refused() -> None:
    def wrong(stage: str, losses: object) -> None: ...

    with pytest.raises(pluggy.PluginValidationError, match="losses"):
        following(pae_metrics_logged=wrong)


class Odd(BaseException):
    """No subclass of Exception."""


@pytest.mark.parametrize(
    "error",
    [ValueError("bad"), SystemExit(3), Odd("odd"), GeneratorExit(), MemoryError()],
    ids=repr,
)
def test_an_error_is_logged_once_and_ends_this_hook_for_the_stage(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[str] = []

    def fails(metrics: int) -> None:
        called.append(LOGGED)
        raise error

    calls = following(pae_metrics_logged=fails, pae_stage_finished=lambda: called.append(FINISHED))
    calls.start_stage()
    tell(calls, LOGGED, LOGGED, FINISHED, LOGGED)
    calls.wait(LONG)
    assert called == [LOGGED, FINISHED]
    (message,) = caplog.messages
    for part in ("acme", "acme-dist", LOGGED, type(error).__name__):
        assert part in message
    calls.start_stage()
    tell(calls, LOGGED)
    calls.end(LONG)
    assert called == [LOGGED, FINISHED, LOGGED]
    assert len(caplog.messages) == 2


def test_a_slow_hook_delays_nobody_and_loses_no_call(blocked: threading.Event) -> None:
    steps: list[int] = []

    def slow(metrics: int) -> None:
        blocked.wait()
        steps.append(metrics)

    calls = following(pae_metrics_logged=slow)
    for step in range(5):
        calls.call(LOGGED, arguments(metrics=step))
    assert steps == []
    blocked.set()
    calls.end(LONG)
    assert steps == list(range(5))


def test_a_hook_that_hangs_is_waited_for_once(
    blocked: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    def hangs() -> None:
        blocked.wait()

    calls = following(pae_stage_started=hangs, pae_metrics_logged=lambda: None)
    tell(calls, STARTED, LOGGED)
    calls.wait(0.05)
    start = time.monotonic()
    calls.wait(LONG)
    assert time.monotonic() - start < LONG / 2
    (message,) = caplog.messages
    assert "acme" in message
    assert STARTED in message
    calls.end(LONG)
    assert time.monotonic() - start < LONG / 2
    assert "dropped" in caplog.messages[-1]


def test_a_hook_that_was_late_is_waited_for_when_the_run_ends(blocked: threading.Event) -> None:
    begun, done = threading.Semaphore(0), threading.Semaphore(0)
    ended: list[int] = []

    def slow(metrics: int) -> None:
        begun.release()
        blocked.wait()
        time.sleep(0.05)
        ended.append(metrics)
        done.release()

    calls = following(pae_metrics_logged=slow)
    tell(calls, LOGGED, LOGGED, LOGGED)
    assert begun.acquire(timeout=LONG)
    calls.wait(0.05)
    blocked.set()
    assert done.acquire(timeout=LONG)
    calls.end(LONG)
    assert len(ended) == 3


def test_calls_after_one_that_was_given_up_are_dropped(blocked: threading.Event) -> None:
    called: list[str] = []
    calls = following(
        pae_stage_started=lambda: blocked.wait(), pae_stage_finished=lambda: called.append("after")
    )
    tell(calls, STARTED, FINISHED)
    calls.end(0.05)
    blocked.set()
    assert calls._worker is not None
    calls._worker.join(LONG)
    assert not calls._worker.is_alive()
    assert called == []


def test_what_a_hook_prints_goes_to_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with lasting_output():
        calls = following(pae_stage_started=lambda: print("of the plugin"))
        tell(calls, STARTED)
        calls.end(LONG)
        print("of the run")
    assert out.getvalue() == "of the run\n"
    assert "of the plugin" in err.getvalue()


def test_a_keyboard_interrupt_stops_the_run() -> None:
    def interrupts() -> None:
        raise KeyboardInterrupt

    calls = following(pae_stage_started=interrupts)

    def work() -> None:
        tell(calls, STARTED)
        end = time.monotonic() + LONG
        while time.monotonic() < end:  # a signal does not end a single long wait in any case
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        work()
    calls.end(LONG)


def test_without_implementations_there_is_no_thread() -> None:
    calls = following(pae_stage_started=lambda: None)
    before: Any = threading.active_count()
    tell(calls, LOGGED, FINISHED)
    calls.start_stage()
    calls.wait(LONG)
    calls.end(LONG)
    assert threading.active_count() == before
