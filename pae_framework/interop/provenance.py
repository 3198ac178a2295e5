"""Where imported files come from: names, sizes and digests, kept in the metadata of copies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from pae_framework.errors import DataError
from pae_framework.tensor_files import save_tensors

ORIGIN = ("imported_from", "imported_bytes", "imported_sha256")
"""Metadata of a copy that `pae import` made: name, size and digest of the original file."""
ENTRY = "imported_entry"
"""Metadata of such a copy: the entry of the original file that holds these weights."""


def require_file(file: str, key: str) -> Path:
    """The file that a recipe names in ``key``.

    Raises:
        DataError: there is no such file.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise DataError(f"{key}: there is no file {path}")
    return path


def describe_file(path: Path) -> dict[str, Any]:
    """Name, size and SHA-256 of a file; for a copy, also those of its original."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    description = {"file": path.name, "bytes": path.stat().st_size, "sha256": digest}
    metadata = _metadata(path) if path.suffix == ".safetensors" else {}
    return {**description, **{key: metadata[key] for key in (*ORIGIN, ENTRY) if key in metadata}}


def original_name(description: Mapping[str, Any]) -> str:
    """Name of the original file, given its :func:`describe_file` or that of a copy."""
    return str(description.get("imported_from", description["file"]))


def write_copy(
    tensors: Mapping[str, Tensor], source: Path, copy: Path, entry: str | None = None
) -> None:
    """Write what was read from ``source`` as safetensors that name the original file.

    A copy of the same file that is there already is not rewritten: stages are identified by its
    bytes.

    Args:
        tensors: what was read.
        source: the file it was read from; if that is a copy itself, its original is named.
        copy: the file to write.
        entry: the entry of ``source`` that held the tensors; None: it has none.
    """
    metadata = _origin(source) | ({} if entry is None else {ENTRY: entry})
    if not (copy.is_file() and _origin(copy) == metadata):
        save_tensors(tensors, copy, metadata)


def _origin(path: Path) -> dict[str, str]:
    """Metadata for a copy of ``path``; a copy of a copy names the first file."""
    found = describe_file(path)
    values = found["file"], found["bytes"], found["sha256"]
    own = dict(zip(ORIGIN, map(str, values), strict=True))
    entry = {ENTRY: str(found[ENTRY])} if ENTRY in found else {}
    return {key: str(found.get(key, own[key])) for key in ORIGIN} | entry


def _metadata(path: Path) -> dict[str, str]:
    """Texts in a safetensors file; none in a damaged one."""
    try:
        with safe_open(path, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except SafetensorError:
        return {}
