"""The speed of a training, from the end of its log. No torch."""

from __future__ import annotations

import json
import os
from pathlib import Path

_END = 64 * 1024
"""Bytes at the end of a log in which its last line is looked for."""


def last_speed(folder: Path) -> float | None:
    """Images per second in the last whole line of a stage's ``metrics.jsonl``; None: unknown."""
    try:
        with (folder / "metrics.jsonl").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _END))
            lines = log.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            speed = json.loads(line)["images_per_s"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        return float(speed) if isinstance(speed, int | float) else None
    return None
