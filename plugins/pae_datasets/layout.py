"""Find the files of idx and tar data sets on disk, before any is read. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

_PREFIX = {"train": "train", "test": "t10k"}


def find_idx_files(folders: Sequence[str], split: str) -> tuple[Path, Path] | str:
    """Image and label file of a split in the first existing folder, or what is missing."""
    existing = [path for folder in folders if (path := Path(folder).expanduser()).is_dir()]
    if not existing:
        expected = _idx_name(split, "images")
        return f"no such folder: {', '.join(folders)} (expected one with {expected}[.gz])"
    files = []
    for content in ("images", "labels"):
        name = _idx_name(split, content)
        # Some copies of MNIST have a dot in place of the second dash.
        stems = (name, name.replace("-idx", ".idx"))
        candidates = [existing[0] / f"{stem}{suffix}" for stem in stems for suffix in ("", ".gz")]
        file = next((path for path in candidates if path.is_file()), None)
        if file is None:
            return f"{existing[0]} contains neither {name} nor {name}.gz"
        files.append(file)
    return files[0], files[1]


def _idx_name(split: str, content: str) -> str:
    return f"{_PREFIX[split]}-{content}-idx{3 if content == 'images' else 1}-ubyte"


def find_shards(root: Path, pattern: str) -> Mapping[str, Path] | str:
    """The files below a folder that match a pattern, by name and sorted, or what is missing."""
    if not root.is_dir():
        return f"no such folder: {root} (expected one with {pattern})"
    try:
        found = {path.relative_to(root).as_posix(): path for path in root.glob(pattern)}
    except OSError as error:
        return f"{error.filename or root} cannot be listed: {error.strerror}"
    shards = {name: path for name, path in sorted(found.items()) if path.is_file()}
    return shards or f"{root} contains no file {pattern}"
