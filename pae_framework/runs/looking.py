"""What a command looks up once, although it plans many recipes from the same files. No torch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar, cast

T = TypeVar("T")

_found: ContextVar[dict[Hashable, object] | None] = ContextVar("found", default=None)
_only: ContextVar[bool] = ContextVar("only", default=False)


@contextmanager
def looking_once() -> Iterator[None]:
    """Let :func:`once` look up each thing once inside the outermost such block.

    There may be millions of images and hundreds of stages. Stages compare the images themselves
    when they start and end.
    """
    if _found.get() is not None:
        yield
        return
    token = _found.set({})
    try:
        yield
    finally:
        _found.reset(token)


@contextmanager
def only_looking() -> Iterator[None]:
    """Plan by what is known of images inside this block: none is read, and nothing is written."""
    token = _only.set(True)
    try:
        with looking_once():
            yield
    finally:
        _only.reset(token)


def only_looks() -> bool:
    """Whether this is inside :func:`only_looking`."""
    return _only.get()


def once(key: Hashable, look: Callable[[], T]) -> T:
    """The result of ``look()``: the first one for this key, inside :func:`looking_once`."""
    found = _found.get()
    if found is None:
        return look()
    if key not in found:
        found[key] = look()
    return cast(T, found[key])


def found_once(key: Hashable) -> object:
    """What :func:`once` has found for a key; None if nothing."""
    return (_found.get() or {}).get(key)


def keep(key: Hashable, value: object) -> None:
    """Let :func:`once` return a value that was found later, inside :func:`looking_once`."""
    if (found := _found.get()) is not None:
        found[key] = value
