"""How data sets lie on disk: finding files before anything is read. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


# --- idx ------------------------------------------------------------------------------------------

_PREFIX = {"train": "train", "test": "t10k"}


def find_idx_files(folders: Sequence[str], split: str) -> tuple[Path, Path] | str:
    """Image file and label file of a split in the first folder that exists, or what is missing."""
    existing = [path for folder in folders if (path := Path(folder).expanduser()).is_dir()]
    if not existing:
        looked = ", ".join(folders)
        return f"no such folder: {looked} (expected one with {idx_name(split, 'images')}[.gz])"
    files = [_idx_file(existing[0], split, part) for part in ("images", "labels")]
    for part, file in zip(("images", "labels"), files, strict=True):
        if file is None:
            return f"{existing[0]} holds no {idx_name(split, part)}, plain or .gz"
    images, labels = files
    assert images is not None
    assert labels is not None
    return images, labels


def idx_name(split: str, part: str) -> str:
    """The standard name of a file: ``train-images-idx3-ubyte``."""
    return f"{_PREFIX[split]}-{part}-idx{3 if part == 'images' else 1}-ubyte"


def _idx_file(folder: Path, split: str, part: str) -> Path | None:
    standard = idx_name(split, part)
    # Some copies of MNIST write a dot where the standard name has its second dash.
    dotted = standard.replace("-idx", ".idx")
    for name in (standard, f"{standard}.gz", dotted, f"{dotted}.gz"):
        if (folder / name).is_file():
            return folder / name
    return None


# --- image folders --------------------------------------------------------------------------------


def image_folder_root(folder: str, split: str | None) -> Path:
    """The folder that holds the class folders."""
    root = Path(folder).expanduser()
    return root / split if split else root


def image_folder_problem(folder: str, split: str | None, expected: int | None = None) -> str | None:
    """What keeps a folder from being one of class folders with images, or None. Reads no image.

    Args:
        folder: root of the data set.
        split: its subfolder that holds the class folders; None: the root does.
        expected: how many class folders there must be; None: any number.
    """
    root = image_folder_root(folder, split)
    if not root.is_dir():
        return f"no such folder: {root} (expected one folder of images per class in it)"
    classes = class_folders(root)
    if not classes:
        return f"{root} holds no class folder (expected {root}/<class>/<image>.jpg)"
    if expected not in (None, len(classes)):
        return f"{root} holds {len(classes)} classes; the recipe says {expected}"
    for path in classes:
        if next(images_below(path), None) is None:
            suffixes = " ".join(sorted(IMAGE_SUFFIXES))
            return f"class folder {path} holds no image ({suffixes}); fill it or remove it"
    return None


def class_folders(root: Path) -> list[Path]:
    """The class folders, sorted by name; hidden folders are none."""
    return sorted(
        (path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")),
        key=lambda path: path.name,
    )


def images_below(folder: Path) -> Iterator[Path]:
    """All image files in a folder and its subfolders, in no particular order."""
    for directory, _, names in os.walk(folder):
        for name in names:
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith("."):  # noqa: PTH122
                yield Path(directory, name)
