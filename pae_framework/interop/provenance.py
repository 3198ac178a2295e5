"""Files of what was trained elsewhere: are they there, and what were they."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pae_framework.errors import DataError

ORIGIN = ("imported_from", "imported_bytes", "imported_sha256")
"""Metadata of a copy that `pae import` made: name, size and digest of the file it was made of."""
ENTRY = "imported_entry"
"""Metadata of such a copy: which entry of that file it is."""


def existing(file: str, key: str) -> Path:
    """The file that a recipe names in ``key``.

    Raises:
        DataError: there is no such file.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise DataError(f"{key}: there is no file {path}")
    return path


def describe_file(path: Path) -> dict[str, Any]:
    """Name, size and SHA-256 of a file; of a copy, also what is known of its original."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    description = {"file": path.name, "bytes": path.stat().st_size, "sha256": digest}
    metadata = _metadata(path) if path.suffix == ".safetensors" else {}
    return {**description, **{key: metadata[key] for key in (*ORIGIN, ENTRY) if key in metadata}}


def origin(path: Path) -> dict[str, str]:
    """Metadata for a copy of ``path``; a copy of a copy names the first file."""
    found = describe_file(path)
    values = found["file"], found["bytes"], found["sha256"]
    own = dict(zip(ORIGIN, map(str, values), strict=True))
    entry = {ENTRY: str(found[ENTRY])} if ENTRY in found else {}
    return {key: str(found.get(key, own[key])) for key in ORIGIN} | entry


def first_name(description: dict[str, Any]) -> str:
    """What the file of a :func:`describe_file` was called where it came from."""
    return str(description.get("imported_from", description["file"]))


def _metadata(path: Path) -> dict[str, str]:
    """Texts in a safetensors file; none in a damaged one."""
    try:
        with safe_open(path, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except SafetensorError:
        return {}
