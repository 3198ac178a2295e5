"""Keep the process usable whatever the code in a block does to it. No torch."""

from __future__ import annotations

import faulthandler
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from typing import Any, NoReturn, TextIO, cast

JOIN_SECONDS = 1.0
"""Threads of a block that end within this time after it are not left behind."""

_left: list[threading.Thread] = []


@contextmanager
def contained() -> Iterator[list[str]]:
    """Undo what the block does to the process, and describe it.

    Output goes to stderr, including that of C code. Standard output and error are restored even if
    they are closed; so are the working directory and a lowered recursion limit. A process that the
    block forks ends at once; the block cannot end its own, or start another program in its place:
    os._exit, os.abort and os.exec* raise SystemExit. A crash prints the lines of code that led to
    it.

    Yields:
        A list that after the block has one message for each thing that the block must not do.
    """
    faults: list[str] = []
    with ExitStack() as stack:
        for part in (_output, _crashes, _threads, _forks, _settings):
            stack.enter_context(part(faults))
        yield faults


def lasting_threads(before: Collection[threading.Thread]) -> list[str]:
    """Describe each new thread that would keep Python from exiting.

    :func:`end_process` does not wait for it. An idle thread of a pool is none: Python ends it.

    Args:
        before: threads that ran before.
    """
    new = [thread for thread in threading.enumerate() if not thread.daemon and thread not in before]
    end = time.monotonic() + JOIN_SECONDS
    for thread in new:
        if not _is_idle(thread):
            thread.join(max(0, end - time.monotonic()))
    running = [thread for thread in new if thread.is_alive() and not _is_idle(thread)]
    _left.extend(running)
    advice = "running; start it as a daemon, when needed"
    return [f"it leaves the thread {thread.name!r} {advice}" for thread in running]


def _is_idle(thread: threading.Thread) -> bool:
    """Whether a ThreadPoolExecutor's thread waits for work: nothing is called in its main loop."""
    loop = getattr(sys.modules.get("concurrent.futures.thread"), "_worker", None)
    frame = sys._current_frames().get(thread.ident or 0)
    return loop is not None and frame is not None and frame.f_code is loop.__code__


def end_process(code: int) -> NoReturn:
    """Exit, even if there is a thread of :func:`lasting_threads` that Python would wait for."""
    if any(thread.is_alive() for thread in _left):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # closed, or there is none
                stream.flush()
        os._exit(code)
    sys.exit(code)


# --- output ---------------------------------------------------------------------------------------

_NAMES = ("stdout", "stderr", "__stdout__", "__stderr__")


_texts: list[Any] = []
"""What stood in for the streams. Kept, because a thread that prints at the end of a block would
crash the process if its stream were freed: print() of Python 3.11 holds no reference."""


class _Lent(io.RawIOBase):
    """Writes into a text stream, and leaves it open when it is closed itself."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._stream.write(bytes(data).decode("utf-8", "replace"))
        return len(data)

    def flush(self) -> None:
        with suppress(ValueError):  # the stream was closed in the meantime
            self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()


@contextmanager
def _output(faults: list[str]) -> Iterator[None]:
    before = {name: getattr(sys, name) for name in _NAMES}
    with suppress(OSError, ValueError, AttributeError):  # closed, or there is none
        sys.stdout.flush()
    lent = None if sys.stderr is None else _Lent(sys.stderr)
    text = lent and io.TextIOWrapper(
        cast(Any, lent), "utf-8", "backslashreplace", line_buffering=True, write_through=True
    )
    _texts.append(text)
    with _descriptors(faults):
        for name in _NAMES:
            setattr(sys, name, text)
        try:
            yield
        finally:
            if lent is not None and lent.closed:
                faults.append("it closes standard output or error")
            for name, stream in before.items():
                setattr(sys, name, stream)


@contextmanager
def _descriptors(faults: list[str]) -> Iterator[None]:
    """Let descriptor 1 be stderr in the block; afterwards both are what they were before."""
    saved: dict[int, int] = {}
    for number in (1, 2):
        with suppress(OSError):  # a closed descriptor
            saved[number] = os.dup(number)
    with suppress(OSError):
        os.dup2(2, 1)
    during = {number: _file(number) for number in saved}
    try:
        yield
    finally:
        _flush_c_output()
        if not faults and during != {number: _file(number) for number in saved}:
            faults.append("it closes or redirects standard output or error")
        for number, copy in saved.items():
            with suppress(OSError):
                os.dup2(copy, number)
                os.close(copy)


def _file(descriptor: int) -> tuple[int, int] | None:
    """Identity of the file behind a descriptor; None if it is closed."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _flush_c_output() -> None:
    """Write what C's printf has buffered, before its descriptor is stdout again."""
    with suppress(OSError, AttributeError, TypeError):  # not a POSIX system
        _c_library().fflush(None)


@cache
def _c_library() -> Any:
    import ctypes

    return ctypes.CDLL(None)


# --- crashes, threads, forks, settings ------------------------------------------------------------


@contextmanager
def _crashes(faults: list[str]) -> Iterator[None]:
    """Print the stack if C code crashes: the process cannot be saved."""
    if faulthandler.is_enabled():
        yield
        return
    with suppress(OSError, ValueError):  # there is no standard error
        faulthandler.enable(2, all_threads=False)
    try:
        yield
    finally:
        faulthandler.disable()


@contextmanager
def _threads(faults: list[str]) -> Iterator[None]:
    """Report threads that Python waits for when it exits.

    Only in the main thread: elsewhere, those that start may belong to others.
    """
    before = set(threading.enumerate())
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            faults += lasting_threads(before)


class _Watch(threading.local):
    """Whether this thread must neither fork nor end the process, and whether it forked."""

    on = False
    forked = False


_watch = _Watch()


end_at_once = os._exit
"""os._exit, in a block of :func:`contained` too."""
_ENDINGS: dict[str, Callable[..., Any]] = {
    name: getattr(os, name) for name in ("_exit", "abort", "execv", "execve")
}
"""Functions of ``os`` after which the process is gone; those that search a program use the last."""


def _refuse_to_end(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    if _watch.on:
        raise SystemExit(f"it calls os.{name}")
    return function(*arguments)


def _after_fork_in_child() -> None:
    if _watch.on:
        end_at_once(0)


def _after_fork_in_parent() -> None:
    _watch.forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child, after_in_parent=_after_fork_in_parent)


@contextmanager
def _forks(faults: list[str]) -> Iterator[None]:
    """Let no forked copy of this process go on, and let nothing take the place of this one.

    `subprocess` is not affected.
    """
    outer = _watch.on, _watch.forked
    _watch.on, _watch.forked = True, False
    for name, function in _ENDINGS.items():
        setattr(os, name, partial(_refuse_to_end, name, function))
    try:
        yield
    finally:
        if not outer[0]:
            for name, function in _ENDINGS.items():
                setattr(os, name, function)
        if _watch.forked:
            faults.append("it forks the process; start other programs with subprocess")
        _watch.on, _watch.forked = outer


@contextmanager
def _settings(faults: list[str]) -> Iterator[None]:
    folder, limit = _working_folder(), sys.getrecursionlimit()
    try:
        yield
    finally:
        if (low := sys.getrecursionlimit()) < limit:
            sys.setrecursionlimit(limit)
            faults.append(f"it lowers the recursion limit to {low}")
        if folder is not None and (now := _working_folder()) != folder:
            with suppress(OSError):
                os.chdir(folder)
            faults.append(f"it changes the working directory to {now}")


def _working_folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - faster, for every plugin
    except OSError:
        return None
