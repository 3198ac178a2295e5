"""Guards around code of plugins that a command imports. No torch.

An import may print, hang, end the process or raise anything. None of this may spoil the output of a
command, keep it waiting or stop it without naming the plugin.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import TracebackException
from types import FrameType
from typing import Any

from pae_framework.errors import PluginError

LIGHT_SECONDS = 20.0
"""Time limit of code that imports no torch: registration and config models."""
HEAVY_SECONDS = 300.0
"""Time limit of code that may import torch and other large packages."""
GRACE_SECONDS = 3.0
"""After the limit, code that catches every exception may run this long before the process ends."""


class PluginTimeout(BaseException):
    """The code ran too long. No Exception, so that plugins do not catch it by accident."""


@contextmanager
def guarded(what: str, seconds: float = LIGHT_SECONDS) -> Iterator[None]:
    """Run code of a plugin inside the block.

    What it prints goes to stderr. It must finish in time; if it cannot be interrupted (it catches
    every exception, or another thread than the main one runs it), the process ends with the exit
    code of PluginError. Ctrl-C still raises KeyboardInterrupt.

    Args:
        what: the plugin and its distribution, for the message of a process that ends.
        seconds: the time limit.

    Raises:
        PluginError: the code raised something, SystemExit and KeyboardInterrupt included, or took
            too long. The message is :func:`describe` of the cause.
    """
    with _stdout_to_stderr(), _interrupts() as interrupts:
        try:
            with _time_limit(what, seconds):
                yield
        except BaseException as error:
            if interrupts:
                raise KeyboardInterrupt from error
            raise PluginError(describe(error)) from error


def describe(error: BaseException) -> str:
    """Type and first line of an exception, even of one that cannot be converted to text."""
    name, text = type(error).__name__, str(TracebackException.from_exception(error)).strip()
    return f"{name}: {text.splitlines()[0]}" if text else name


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send output to stderr, including that of C code, which knows only file descriptors."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or there is none
            sys.stdout.flush()
        with contextlib.suppress(OSError):  # a closed descriptor
            saved = os.dup(1)
            stack.callback(os.close, saved)
            os.dup2(2, 1)
            stack.callback(os.dup2, saved, 1)
            stack.callback(_flush_c_output)
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


def _flush_c_output() -> None:
    """Write what C's printf has buffered, before its descriptor is stdout again."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError, TypeError):  # not a POSIX system
        ctypes.CDLL(None).fflush(None)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Yield a list that gets every SIGINT, to tell it from a KeyboardInterrupt of the plugin."""
    received: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if not _in_main_thread() or not callable(before):
        yield received
        return

    def note(number: int, frame: FrameType | None) -> Any:
        received.append(number)
        return before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _time_limit(what: str, seconds: float) -> Iterator[None]:
    """Raise PluginTimeout in the main thread; where nothing can be raised, end the process."""
    can_raise = _in_main_thread() and hasattr(signal, "setitimer")
    text = f"it did not finish within {seconds:g} s"

    def end_process() -> None:
        os.write(2, f"error: {what}: {text} and cannot be interrupted\n".encode())
        os._exit(PluginError.exit_code)

    watchdog = threading.Timer(seconds + GRACE_SECONDS * can_raise, end_process)
    watchdog.daemon = True
    watchdog.start()
    try:
        if can_raise:
            with _alarm(seconds, text):
                yield
        else:
            yield
    finally:
        watchdog.cancel()


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


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
