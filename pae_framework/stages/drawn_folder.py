"""A folder that a command fills again and again, and that may hold files of others, too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pae_framework.files import read_json, write_json


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


def _listed(record: Path) -> list[str]:
    """Names in the record; none where it is missing, damaged or not ours."""
    try:
        content = read_json(record)
    except (FileNotFoundError, ValueError):
        return []
    names = content.get("files") if isinstance(content, dict) else None
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
