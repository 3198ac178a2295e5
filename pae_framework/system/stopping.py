"""Stop between two steps when the process receives a signal. No torch.

Slurm and terminals signal every process of a job, often more than once. The main process finishes
its step and saves; its worker processes must not end before it has told them to.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import ClassVar

from pae_framework.errors import StoppedError

STOP_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


class StopRequest:
    """While entered, :data:`STOP_SIGNALS` set :attr:`asked` instead of ending the process.

    The training loop reads it between steps and saves a checkpoint before it stops; the signal
    handler itself saves nothing. More signals change nothing, except that a second Ctrl-C raises
    KeyboardInterrupt. SIGHUP stays ignored under ``nohup``. Signals can only be handled in the
    main thread; in other threads this class does nothing. A request inside another one begins as
    that one is.

    Args:
        until: what is finished first, for a message on standard error that acknowledges the first
            signal; empty: none is printed.

    Attributes:
        number: the first signal; None: there was none.
    """

    _entered: ClassVar[list[StopRequest]] = []

    def __init__(self, until: str = "") -> None:
        self.number: int | None = None
        self._until = until
        self._interrupted = False
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                before = signal.getsignal(number)
                if number != signal.SIGHUP or before != signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, self._ask)
            self.number = next((x.number for x in self._entered if x.number is not None), None)
            self._entered.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._handlers = {}
        if self in self._entered:
            self._entered.remove(self)

    @property
    def asked(self) -> bool:
        """Whether a signal has asked to stop."""
        return self.number is not None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
            self._acknowledge(number)
        if number == signal.SIGINT:
            if self._interrupted:
                raise Interruption(number)
            self._interrupted = True

    def _acknowledge(self, number: int) -> None:
        """Print without Python's buffers, which the signal may have interrupted."""
        if not self._until:
            return
        clear = "\r\x1b[K" if os.isatty(2) else ""
        again = " (Ctrl-C again: at once, unsaved)" if number == signal.SIGINT else ""
        with suppress(OSError):
            os.write(2, f"{clear}stopping after {self._until} ...{again}\n".encode())


class Interruption(KeyboardInterrupt):
    """A signal that ends what is under way.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


def stopped_by(error: StoppedError | KeyboardInterrupt) -> StoppedError:
    """The error that says what an interruption means: what was saved counts."""
    if isinstance(error, StoppedError):
        return error
    number = error.number if isinstance(error, Interruption) else signal.SIGINT
    return StoppedError(f"{str(error) or 'interrupted'}; what was saved before is kept", number)


@contextmanager
def interrupted_by(numbers: Collection[int]) -> Iterator[None]:
    """The first of these signals raises :class:`Interruption`; later ones change nothing.

    In a :class:`StopRequest` they ask to stop instead. For the main thread.
    """
    has_raised = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal has_raised
        if not has_raised:
            has_raised = True
            raise Interruption(number)

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Start worker processes inside this block: they inherit that :data:`STOP_SIGNALS` are blocked.

    Such a process does not end on ``terminate()`` either; end it explicitly.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
