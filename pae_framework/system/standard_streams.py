"""Standard output that holds results only; streams that outlive their reader. No torch."""

from __future__ import annotations

import codecs
import errno
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, cast

_NAMES = ("stdout", "stderr")
_thread = threading.local()
_GONE = (errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF)
"""Errors that mean that nobody reads the output: a closed pipe, a closed terminal."""


_lasting: list[LastingStream] = []
"""Kept, because a thread that prints while its stream is freed would crash Python 3.11."""


@contextmanager
def lasting_output() -> Iterator[None]:
    """Let the block go on if standard output or error can no longer be written.

    What is printed is then dropped, also by child processes. Characters that the encoding of a
    stream lacks are printed as escapes. A block inside another changes nothing.
    """
    before = {name: getattr(sys, name) for name in _NAMES}
    for name, stream in before.items():
        if not isinstance(stream, LastingStream):
            _lasting.append(LastingStream(_usable(stream)))
            setattr(sys, name, _lasting[-1])
    try:
        yield
    finally:
        for name, stream in before.items():
            getattr(sys, name).flush()
            setattr(sys, name, stream)


def print_to_stderr() -> None:
    """Send what this thread writes to ``sys.stdout`` to stderr, in a block of lasting_output."""
    _thread.prints_to_stderr = True


def lost_output() -> str | None:
    """Why printed text was lost, though somebody wanted it; None if it was not.

    Tells it once. For a block of :func:`lasting_output`.
    """
    sys.stdout.flush()
    stream = _results or sys.stdout
    if not isinstance(stream, LastingStream) or (error := stream.lost) is None:
        return None
    stream.lost = None
    if error.errno in _GONE:
        return None
    return f"standard output cannot be written: {error.strerror or error}"


_results: LastingStream | None = None
"""After :func:`results_only`: a stream of its own into what was standard output."""


def results_only() -> None:
    """From now on, only :func:`write_result` writes on standard output.

    What any other code prints goes to standard error; also C code, threads and child processes. In
    a process whose ``sys.stdout`` is not descriptor 1, as in tests, nothing changes.
    """
    global _results
    if _results is not None or not _is_descriptor_1():
        return
    sys.stdout.flush()
    own = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    _results = LastingStream(own)
    no_more_results()


def write_result(text: str) -> None:
    """Write text on standard output, after :func:`results_only` too."""
    stream = sys.stdout if _results is None else _results
    stream.write(text)
    stream.flush()


def results_take_unicode() -> bool:
    """Whether :func:`write_result` can write every character as it is."""
    encoding = getattr(_results or sys.stdout, "encoding", None)
    return encoding is not None and codecs.lookup(encoding).name == "utf-8"


def no_more_results() -> None:
    """Send to standard error what is printed from now on, at exit too."""
    if _is_descriptor_1():
        sys.stdout.flush()
        with suppress(OSError):  # there is no standard error
            os.dup2(2, 1)


def _is_descriptor_1() -> bool:
    try:
        return sys.stdout.fileno() == 1
    except (OSError, ValueError, AttributeError):  # closed, or there is none
        return False


class LastingStream:
    """A text stream that drops what is written after the first error.

    Attributes:
        lost: the first error, until :func:`lost_output` has told it.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        if self is sys.stdout and getattr(_thread, "prints_to_stderr", False):
            return sys.stderr.write(text)
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts, or drop them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _drop(self, error: OSError) -> None:
        if isinstance(error, BlockingIOError):  # only slow
            return
        self.lost = self.lost or error
        # What is left in buffers then goes nowhere, instead of failing when Python exits.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def _usable(stream: TextIO | None) -> TextIO:
    """The stream, or one that goes nowhere if it was closed before Python started."""
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
        cast(Any, stream).reconfigure(errors="backslashreplace")
    return stream
