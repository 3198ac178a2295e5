"""A folder that a command fills again and again, and that may hold files of others, too."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pae_framework.files import read_json, write_json

LATER = ("further", "found")
"""Keys of a record that :func:`add` writes; they do not tell one command from another."""


def start_again(
    folder: Path, record: str, pattern: str, files: Sequence[str], facts: Mapping[str, Any]
) -> None:
    """Make the folder, remove what the command wrote there before, and record what it writes now.

    Removed are the files that the record lists and that the pattern matches whole. The new record
    is there before its files are, so that those of an interrupted command are found, too.

    Args:
        folder: where the command writes.
        record: name of the JSON file that lists what it wrote, under ``files``.
        pattern: regular expression of the names it gives to files.
        files: names of the files it is about to write.
        facts: what else to record.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in _listed(folder / record):
        if re.fullmatch(pattern, name) and Path(name).name == name:
            (folder / name).unlink(missing_ok=True)
    write_json(folder / record, {**facts, "files": list(files)})


def go_on(
    folder: Path,
    record: str,
    pattern: str,
    files: Sequence[str],
    facts: Mapping[str, Any],
    whole: Callable[[Path], bool] = Path.is_file,
) -> list[str]:
    """Names of the files still to be written, of a command that may have been interrupted.

    Where the record says that the same files with the same facts were under way, those that are
    ``whole`` count; else the folder is started again. Other arguments as in :func:`start_again`.
    """
    wanted = json.loads(json.dumps({**facts, "files": list(files)}))
    content = _content(folder / record)
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if key not in LATER}
    if content != wanted:
        start_again(folder, record, pattern, files, facts)
    return [name for name in files if not whole(folder / name)]


def add(folder: Path, record: str, further: Sequence[str] = (), **found: Any) -> None:
    """Record further files, before they are written, and what was found while writing."""
    content = read_json(folder / record)
    if further:
        content["further"] = sorted({*content.get("further", ()), *further})
    if found:
        content["found"] = {**content.get("found", {}), **found}
    write_json(folder / record, content)


def is_listed(folder: Path, record: str, name: str) -> bool:
    """Whether the record says that the command wrote this file."""
    return name in _listed(folder / record)


def _listed(record: Path) -> list[str]:
    """Names in the record; none where it is missing, damaged or not ours."""
    content = _content(record)
    if not isinstance(content, dict):
        return []
    lists = (content.get(key) for key in ("files", "further"))
    names = [name for names in lists if isinstance(names, list) for name in names]
    return [name for name in names if isinstance(name, str)]


def _content(record: Path) -> Any:
    """What the record says; None where it is missing or damaged."""
    try:
        return read_json(record)
    except (FileNotFoundError, ValueError):
        return None
