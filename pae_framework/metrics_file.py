"""The file ``metrics.jsonl`` of a training: one record per logged step. No torch."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

METRICS = "metrics.jsonl"
"""Name of the file in the folder of a stage."""

logger = logging.getLogger(__name__)


def read_log(path: Path) -> list[dict[str, float]]:
    """Records of a metrics log; none if there is no log.

    A line that is not a record is left out with a warning, except for an incomplete last line,
    which a kill leaves.
    """
    content = path.read_bytes() if path.is_file() else b""
    *lines, last = content.split(b"\n")
    records = [_record(line) for line in lines]
    if damaged := [str(number) for number, found in enumerate(records, start=1) if found is None]:
        logger.warning("%s: damaged lines are left out: %s", path, ", ".join(damaged))
    return [found for found in (*records, _record(last)) if found is not None]


def describe_gap(path: Path, records: Sequence[Mapping[str, float]], logged: int) -> str | None:
    """What is lost of a log that should end at step ``logged``; None if it does not end before.

    Args:
        path: of the log.
        records: its records.
        logged: the last step of the log as it was written; 0: it had no records.
    """
    last = max((int(record["step"]) for record in records), default=0)
    if last >= logged:
        return None
    fact = f"ends at step {last}" if path.is_file() else "is missing"
    return f"{path} {fact}: the lines of steps {last + 1} to {logged} are lost"


def _record(line: bytes) -> dict[str, float] | None:
    """The record in a line: a step and other numbers; None if there is something else."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or type(record.get("step")) is not int:
        return None
    return record if all(_is_number(value) for value in record.values()) else None


def _is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)
