"""Find the files of data sets on disk, before any is read. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


# --- idx ------------------------------------------------------------------------------------------

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


# --- image folders --------------------------------------------------------------------------------


def image_folder_problem(root: Path, expected: int | None = None) -> str | None:
    """A message if a folder does not consist of class folders with images, else None.

    Reads no image.

    Args:
        root: folder of the class folders.
        expected: number of class folders; None: any number.
    """
    if not root.is_dir():
        return f"no such folder: {root} (expected one folder of images per class in it)"
    classes = class_folders(root)
    if not classes:
        return f"{root} contains no class folder (expected {root}/<class>/<image>.jpg)"
    if expected not in (None, len(classes)):
        return f"{root} contains {len(classes)} classes, but `classes` is {expected}"
    for path in classes:
        if next(images_below(path), None) is None:
            suffixes = " ".join(sorted(IMAGE_SUFFIXES))
            return f"class folder {path} contains no image ({suffixes}); fill it or remove it"
    return None


def class_folders(root: Path) -> list[Path]:
    """The class folders, sorted by name, without hidden folders."""
    folders = [path for path in root.iterdir() if path.is_dir()]
    return sorted(path for path in folders if not path.name.startswith("."))


def images_below(folder: Path) -> Iterator[Path]:
    """Image files in a folder and its subfolders, in any order, without hidden files."""
    for directory, _, names in os.walk(folder):
        for name in names:
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith("."):  # noqa: PTH122
                yield Path(directory, name)
