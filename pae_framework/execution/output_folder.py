"""A folder that a command writes to repeatedly and that may contain other files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pae_framework.system.files import make_folder, read_json, write_json

_ADDED_KEYS = ("further", "found")
"""Keys that :func:`add_to_record` writes; they do not identify a command."""


def restart(
    folder: Path, record: str, pattern: str, files: Sequence[str], facts: Mapping[str, Any]
) -> None:
    """Create the folder, remove the files of an earlier command, and record those of this one.

    A file is removed if the record lists it and the pattern matches its full name. The record is
    written before the files, so it also lists the files of an interrupted command.

    Args:
        folder: the output folder.
        record: name of the JSON file that lists the written files, under ``files``.
        pattern: regular expression of the file names that the command uses.
        files: names of the files that the command is about to write.
        facts: other values to record.
    """
    make_folder(folder)
    for name in _listed(folder / record):
        if re.fullmatch(pattern, name) and Path(name).name == name:
            (folder / name).unlink(missing_ok=True)
    write_json(folder / record, {**facts, "files": list(files)})


def resume_or_restart(
    folder: Path,
    record: str,
    pattern: str,
    files: Sequence[str],
    facts: Mapping[str, Any],
    is_complete: Callable[[Path], bool] = Path.is_file,
) -> list[str]:
    """Names of the files that still have to be written.

    If the record has the same files and facts, the command resumes: files for which ``is_complete``
    is true are kept. Otherwise calls :func:`restart`, which describes the other arguments.
    """
    expected = json.loads(json.dumps({**facts, "files": list(files)}))
    content = _content(folder / record)
    if _without_added(content) != expected:
        restart(folder, record, pattern, files, facts)
    return [name for name in files if not is_complete(folder / name)]


def _without_added(content: Any) -> Any:
    """A record without what :func:`add_to_record` wrote; None if that is damaged."""
    if not isinstance(content, dict):
        return None
    further, found = content.get("further", []), content.get("found", {})
    if not isinstance(further, list) or not isinstance(found, dict):
        return None
    if not all(isinstance(name, str) for name in further):
        return None
    return {key: value for key, value in content.items() if key not in _ADDED_KEYS}


def add_to_record(folder: Path, record: str, further: Sequence[str] = (), **values: Any) -> None:
    """Record further files before they are written, and values known only after writing."""
    content = read_json(folder / record)
    if further:
        content["further"] = sorted({*content.get("further", ()), *further})
    if values:
        content["found"] = {**content.get("found", {}), **values}
    write_json(folder / record, content)


def is_listed(folder: Path, record: str, name: str) -> bool:
    """Whether the record lists this file."""
    return name in _listed(folder / record)


def _listed(record: Path) -> list[str]:
    """Names in the record; empty if it is missing, damaged or another kind of file."""
    content = _content(record)
    if not isinstance(content, dict):
        return []
    lists = (content.get(key) for key in ("files", "further"))
    names = [name for names in lists if isinstance(names, list) for name in names]
    return [name for name in names if isinstance(name, str)]


def _content(record: Path) -> Any:
    """The content of the record; None if it is missing or damaged."""
    try:
        return read_json(record)
    except (OSError, ValueError, RecursionError):
        return None
