"""Stop between two steps when the process receives a signal. No torch.

Slurm and terminals signal every process of a job, often more than once. The main process finishes
its step and saves; its worker processes must not end before it has told them to.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ClassVar

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
    """

    _entered: ClassVar[list[StopRequest]] = []

    def __init__(self) -> None:
        self.asked = False
        self._interrupted = False
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                before = signal.getsignal(number)
                if number != signal.SIGHUP or before != signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, self._ask)
            self.asked = any(request.asked for request in self._entered)
            self._entered.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._handlers = {}
        if self in self._entered:
            self._entered.remove(self)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if number == signal.SIGINT:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True


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
