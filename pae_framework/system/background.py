"""Calls of a function in a thread beside the main one. No torch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, ParamSpec, Self, TypeVar

P = ParamSpec("P")
K = TypeVar("K")
T = TypeVar("T")


class Background(Generic[P, T]):
    """Calls a function in a thread, one call at a time. Use as a context manager.

    When a block ends, with or without an error, the call under way is finished first.
    """

    def __init__(self, function: Callable[P, T]):
        self._function = function
        self._pool = ThreadPoolExecutor(1)
        self._call: Future[T] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown()

    def start(self, *arguments: P.args, **named: P.kwargs) -> None:
        """Start a call; the one before must have been :meth:`taken <take>`."""
        assert self._call is None
        self._call = self._pool.submit(self._function, *arguments, **named)

    def take(self, wait: bool = True) -> T | None:
        """The result of the call under way, which raises its error here.

        None if there is none, or if it has not ended and ``wait`` is false.
        """
        call = self._call
        if call is None or not (wait or call.done()):
            return None
        self._call = None
        return call.result()


def one_ahead(function: Callable[[K], T], keys: Iterable[K]) -> Generator[T, None, None]:
    """The results of a function for some keys, in order.

    While one result is used, a thread computes the next.
    """
    with ThreadPoolExecutor(1) as thread:
        call: Future[T] | None = None
        for key in keys:
            following = thread.submit(function, key)
            if call is not None:
                yield call.result()
            call = following
        if call is not None:
            yield call.result()
