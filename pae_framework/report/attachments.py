"""The pictures and tables that evaluators wrote into their folders, ready for a page.

A file ``worst.png`` takes its caption from a text file ``worst.txt`` beside it, else from its name.
"""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pae_framework.report.encoding import fitted_uri
from pae_framework.report.metrics import readable

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
TABLES = (".csv", ".jsonl")
SHOWN_ROWS = 20
_SHOWN_COLUMNS = 12
_CELL = 80
"""Longer cells are cut, characters."""
_TABLE_BYTES = 1_000_000
"""Of a longer table, only the beginning is read."""
_CAPTION = 2000
_PIXELS = 50_000_000
_ALL_PICTURES = 1_000_000
"""Characters of all pictures of the evaluators on a page."""
_SHOWN_FILES = 40


@dataclass(frozen=True)
class Attachment:
    """A file of an evaluator: ``picture`` (a data URI), or a table; else ``note`` says why not."""

    name: str
    caption: str
    picture: str = ""
    heading: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    note: str = ""


def attachable(names: Iterable[str]) -> list[str]:
    """Those of the files that a page can show, sorted: pictures, then tables."""
    found = [name for name in names if Path(name).suffix.lower() in (*PICTURES, *TABLES)]
    return sorted(found, key=lambda name: (_is_table(name), name))


def read_attachments(
    evaluators: Mapping[str, Mapping[str, Path]],
) -> dict[str, list[Attachment]]:
    """Read the files of evaluators. What is too large or unreadable gets a note instead.

    Args:
        evaluators: by label, the path of each file by its name, as :func:`attachable` orders them.
    """
    attachments: dict[str, list[Attachment]] = {}
    budget = _ALL_PICTURES
    for label, files in evaluators.items():
        for number, (name, path) in enumerate(files.items()):
            if number < _SHOWN_FILES:
                attachment = _read(name, path, budget)
                budget -= len(attachment.picture)
            else:
                note = f"not shown: more than {_SHOWN_FILES} files"
                attachment = Attachment(name, _caption(name, path), note=note)
            attachments.setdefault(label, []).append(attachment)
    return attachments


def _read(name: str, path: Path, budget: int) -> Attachment:
    caption = _caption(name, path)
    try:
        if _is_table(name):
            return _table(name, caption, path)
        return Attachment(name, caption, picture=_picture(path, budget))
    except Exception as error:  # Pillow and csv fail in many ways on files of others
        reason = str(error) or type(error).__name__
        return Attachment(name, caption, note=f"not shown: {reason}")


def _is_table(name: str) -> bool:
    return Path(name).suffix.lower() in TABLES


def _caption(name: str, path: Path) -> str:
    try:
        with path.with_suffix(".txt").open(encoding="utf-8", errors="replace") as file:
            written = " ".join(file.read(_CAPTION).split())
    except OSError:
        written = ""
    return written or Path(name).stem.replace("_", " ").replace("-", " ")


def _picture(path: Path, budget: int) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            if image.width * image.height > _PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            return fitted_uri(image, budget)


# --- tables ---------------------------------------------------------------------------------------


def _table(name: str, caption: str, path: Path) -> Attachment:
    text, is_whole = _beginning(path)
    read = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    heading, rows = read(text)
    shown = [[_cut(cell) for cell in row[:_SHOWN_COLUMNS]] for row in rows[:SHOWN_ROWS]]
    notes = []
    if len(rows) > SHOWN_ROWS or not is_whole:
        total = f"{len(rows):,}" if is_whole else f"more than {len(rows):,}"
        notes.append(f"the first {len(shown)} of {total} rows")
    if len(heading) > _SHOWN_COLUMNS:
        notes.append(f"the first {_SHOWN_COLUMNS} of {len(heading)} columns")
    columns = [_cut(cell) for cell in heading[:_SHOWN_COLUMNS]]
    return Attachment(name, caption, heading=columns, rows=shown, note="; ".join(notes))


def _beginning(path: Path) -> tuple[str, bool]:
    """The complete lines of the file's beginning, and whether they are the whole file."""
    with path.open("rb") as file:
        content = file.read(_TABLE_BYTES + 1)
    is_whole = len(content) <= _TABLE_BYTES
    if not is_whole:
        content = content[: content.rfind(b"\n") + 1]
    return content.decode("utf-8-sig", errors="replace"), is_whole


def _csv_rows(text: str) -> tuple[list[str], list[list[str]]]:
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    return (rows[0], rows[1:]) if rows else ([], [])


def _json_rows(text: str) -> tuple[list[str], list[list[str]]]:
    records: list[dict[str, Any]] = []
    for line in filter(str.strip, text.splitlines()):
        record = json.loads(line)
        records.append(record if isinstance(record, dict) else {"value": record})
    heading = list(dict.fromkeys(key for record in records for key in record))
    rows = [
        [readable(record[key]) if key in record else "" for key in heading] for record in records
    ]
    return heading, rows


def _cut(cell: str) -> str:
    return cell if len(cell) <= _CELL else cell[: _CELL - 1] + "…"
