"""Guards around code of plugins that a command imports. No torch.

An import may print, hang, fork, leave threads, end the process or raise anything. None of this may
spoil the output of a command, keep it waiting or stop it without naming the plugin.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from traceback import TracebackException
from types import FrameType
from typing import Any, NoReturn

from pae_framework.errors import PluginError, StoppedError, UsageError
from pae_framework.system.contained import contained, end_at_once
from pae_framework.system.stopping import STOP_SIGNALS
from pae_framework.system.watchdog import Watchdog

LIGHT_SECONDS = 20.0
"""Time limit of code that imports no torch: registration and config models."""
HEAVY_SECONDS = 300.0
"""Time limit of code that may import torch and other large packages."""
NOTICE_SECONDS = 5.0
"""After this time, a line on stderr names the code that is waited for."""
GRACE_SECONDS = 3.0
"""After the limit, or after a signal that stops the command, code that catches every exception may
run this long before the process ends."""

SECONDS_VARIABLE = "PAE_PLUGIN_SECONDS"
"""Environment variable that raises the limits, for slow machines."""
_LONGEST = 1e6

logger = logging.getLogger(__name__)

_WATCHDOG = Watchdog()


class PluginTimeout(BaseException):
    """The code ran too long. No Exception, so that plugins do not catch it by accident."""


@contextmanager
def guarded(what: str, seconds: float | None = LIGHT_SECONDS) -> Iterator[None]:
    """Run code of a plugin inside the block.

    What it prints goes to stderr, and what it does to the process is undone
    (:func:`~pae_framework.system.contained.contained`). It must finish in time. In the main thread
    the process ends with the exit code of PluginError if the code cannot be interrupted, because it
    catches every exception. In other threads nothing can be interrupted; code that takes too long
    is only logged. A line on stderr names code that runs for seconds, and code that a signal stops.
    What the handler of the signal raised, such as KeyboardInterrupt, leaves the block even if the
    code catches it.

    Args:
        what: the plugin and its distribution, for messages.
        seconds: the time limit, which ``PAE_PLUGIN_SECONDS`` may raise; None: no limit.

    Raises:
        PluginError: the code raised something, SystemExit and KeyboardInterrupt included, took too
            long, or did to the process what it must not. The message says what.
        UsageError: ``PAE_PLUGIN_SECONDS`` is not a number of seconds.
    """
    limit = None if seconds is None else _raised_limit(seconds)
    with _interrupts(what) as interrupts:
        try:
            with contained() as faults, _time_limit(what, limit):
                yield
        except BaseException as error:
            if not interrupts:
                raise PluginError(describe(error)) from error
        if interrupts:
            _say(f"stopped in {what}")
            raise interrupts[0]
    if faults:
        raise PluginError("; ".join(faults))


def _raised_limit(seconds: float) -> float:
    stated = os.environ.get(SECONDS_VARIABLE)
    if not stated:
        return seconds
    try:
        return min(max(seconds, float(stated)), _LONGEST)
    except ValueError:
        message = f"{SECONDS_VARIABLE} is {stated!r}, not a number of seconds"
        raise UsageError(message) from None


def describe(error: BaseException) -> str:
    """Type and first line of an exception, even of one that cannot be converted to text."""
    name, text = type(error).__name__, str(TracebackException.from_exception(error)).strip()
    if not text:
        return name
    line = text.splitlines()[0]
    return line if isinstance(error, PluginError) else f"{name}: {line}"


@contextmanager
def _interrupts(what: str) -> Iterator[list[BaseException]]:
    """Yield a list that gets what handlers of :data:`STOP_SIGNALS` raise, to tell it from the rest.

    If the code catches it, the process ends after GRACE_SECONDS. Handlers that the code sets are
    removed.
    """
    raised: list[BaseException] = []
    timers: list[threading.Timer] = []
    numbers = STOP_SIGNALS if _in_main_thread() else ()
    handlers = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in handlers.items() if callable(handler)}

    def noting(handler: Callable[[int, FrameType | None], Any]) -> Any:
        def note(number: int, frame: FrameType | None) -> Any:
            try:
                return handler(number, frame)
            except BaseException as error:
                raised.append(error)
                if not timers:
                    timers.append(_ending(what, number))
                raise

        return note

    try:
        for number, handler in before.items():
            signal.signal(number, noting(handler))
        yield raised
    finally:
        try:
            for number, handler in before.items():
                signal.signal(number, handler)
        finally:
            for timer in timers:
                timer.cancel()


def _ending(what: str, number: int) -> threading.Timer:
    """Start a timer that ends the process, unless it is canceled."""
    text = f"stopped in {what}"
    timer = threading.Timer(GRACE_SECONDS, _quit, (text, StoppedError(text, number).exit_code))
    timer.daemon = True
    timer.start()
    return timer


@contextmanager
def _time_limit(what: str, seconds: float | None) -> Iterator[None]:
    """Raise PluginTimeout in the main thread; in others, only log."""
    if seconds is None:
        yield
        return
    in_main = _in_main_thread()
    can_raise = in_main and hasattr(signal, "setitimer")
    text = f"it did not finish within {seconds:g} s"

    def give_up() -> None:
        if in_main:
            _quit(f"error: {what}: {text} and cannot be interrupted", PluginError.exit_code)
        logger.warning("%s: %s", what, text)

    waiting = f"waiting for {what}, up to {seconds:g} s"
    notice = (min(NOTICE_SECONDS, seconds), lambda: _say(waiting))
    end = (seconds + GRACE_SECONDS * can_raise, give_up)
    with _WATCHDOG.watching(notice, end), _alarm(seconds, text) if can_raise else nullcontext():
        yield


@contextmanager
def _alarm(seconds: float, text: str) -> Iterator[None]:
    """Raise PluginTimeout after ``seconds``, and again every half second."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise PluginTimeout(text)

    handler = signal.signal(signal.SIGALRM, stop)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)
    end = time.monotonic() + left
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:  # also if the alarm rings before the line above
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:  # an alarm that was set before
            signal.setitimer(signal.ITIMER_REAL, max(end - time.monotonic(), 1e-3), interval)


def _say(text: str) -> None:
    """Write a line on stderr, whatever the code has done to ``sys.stderr``."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())


def _quit(text: str, code: int) -> NoReturn:
    _say(text)
    end_at_once(code)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
