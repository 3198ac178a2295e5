"""Formats values and suggests known names in messages. No torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def describe(value: Any) -> str:
    """Format a value for a message: ``'x'``, ``3``, ``null``, ``a map``, ``a list``."""
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def suggestion(word: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the closest known name, or all known names."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"expected one of: {', '.join(names)}" if names else "no key is allowed here"
