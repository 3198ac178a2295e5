"""Spans of time as text."""

from __future__ import annotations


def format_seconds(seconds: float) -> str:
    """``42 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_clock(seconds: float) -> str:
    """``0:42``, ``3:20`` or ``2:05:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def format_age(seconds: float) -> str:
    """``0 min``, ``5 min``, ``3 h`` or ``12 d``: whole numbers of the largest unit."""
    for unit, name in ((86400, "d"), (3600, "h")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {name}"
    return f"{int(seconds // 60)} min"
