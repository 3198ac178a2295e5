"""Stop between two steps when the process receives a signal."""

from __future__ import annotations

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While entered, SIGINT and SIGTERM set :attr:`asked` instead of ending the process.

    The training loop reads it between steps and saves a checkpoint before it stops; the signal
    handler itself saves nothing. A second signal ends the process as usual. Signals can only be
    handled in the main thread; in other threads this class does nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._handlers[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._handlers = {}
