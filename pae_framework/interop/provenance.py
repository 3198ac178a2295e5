"""Provenance of imported files: name, size and digest, kept in the metadata of copies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from safetensors import safe_open
from torch import Tensor

from pae_framework.errors import DataError
from pae_framework.execution.context import StageContext
from pae_framework.runs.reading import read_record
from pae_framework.system.files import file_problem, write_json
from pae_framework.tensor_files import save_tensors
from pae_framework.weight_parts import find_parts

ORIGIN = ("imported_from", "imported_bytes", "imported_sha256")
"""Metadata of a copy that `pae import` made: name, size and digest of the original file."""
ENTRY = "imported_entry"
"""Metadata of such a copy: the key of these weights in the original file."""

WEIGHTS = "weights.json"
"""Describes the file that a stage loaded its weights from."""
INITIAL_WEIGHTS = "initial_weights.json"
"""Describes the file that the training of a stage started from."""


class _Source(BaseModel):
    file: str
    entry: str | None
    imported_from: str = ""


def require_file(file: str, key: str, folder: bool = False) -> Path:
    """The file that a recipe names in ``key``; with ``folder``, it may be a folder.

    Raises:
        DataError: there is no such file.
    """
    path = Path(file).expanduser()
    if problem := file_problem(path, folder):
        raise DataError(f"{key}: {problem}")
    return path


def describe_file(path: Path) -> dict[str, Any]:
    """Name, size and SHA-256 of a file; for a copy, also those of its original.

    For a folder or an index of weights, the size and hash are those of its parts, in order.
    """
    digest, size = hashlib.sha256(), 0
    for part in find_parts(path).files:
        with part.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
        size += part.stat().st_size
    description = {"file": path.name, "bytes": size, "sha256": digest.hexdigest()}
    metadata = _metadata(path) if path.suffix == ".safetensors" else {}
    return {**description, **{key: metadata[key] for key in (*ORIGIN, ENTRY) if key in metadata}}


def record_source(
    context: StageContext, name: str, description: Mapping[str, Any], **more: Any
) -> None:
    """Write a file's :func:`describe_file` and ``more`` as ``name`` into the stage's folder.

    The stage's record gets the name of the original file.
    """
    write_json(context.directory / name, {**description, **more})
    context.update_record(weights=original_name(description))


def read_source(path: Path) -> dict[str, Any]:
    """What :func:`record_source` wrote.

    Raises:
        RunError: the file is damaged.
    """
    source: dict[str, Any] = read_record(path, _Source, "run the stage again with --again")
    return source


def original_name(description: Mapping[str, Any]) -> str:
    """Name of the original file, from :func:`describe_file` of the file or of a copy."""
    return str(description.get("imported_from", description["file"]))


def write_copy(
    tensors: Mapping[str, Tensor], source: Path, copy: Path, entry: str | None = None
) -> None:
    """Write tensors read from ``source`` as safetensors that name the original file.

    An existing copy of the same file is not rewritten, because its bytes identify stages.

    Args:
        tensors: what was read.
        source: the file they were read from; if it is a copy, its original is named.
        copy: the file to write.
        entry: the key of the tensors in ``source``, if any.
    """
    metadata = _origin(source) | ({} if entry is None else {ENTRY: entry})
    if not (copy.is_file() and _origin(copy) == metadata):
        save_tensors(tensors, copy, metadata)


def _origin(path: Path) -> dict[str, str]:
    """Metadata for a copy of ``path``; a copy of a copy names the first file."""
    described = describe_file(path)
    values = described["file"], described["bytes"], described["sha256"]
    own = dict(zip(ORIGIN, map(str, values), strict=True))
    entry = {ENTRY: str(described[ENTRY])} if ENTRY in described else {}
    return {key: str(described.get(key, own[key])) for key in ORIGIN} | entry


def _metadata(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file; empty if the file is damaged."""
    try:
        with safe_open(path, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except Exception:  # damaged headers fail in more ways than can be listed
        return {}
