"""Which file is the mask of which image. Reads no file. No torch."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from pae_framework.data.classes import some_names


def mask_name(name: str) -> str:
    """Name of the mask of the image ``class/a.jpg``: ``class/a.png``."""
    return str(PurePosixPath(name).with_suffix(".png"))


def problem_of_masks(root: Path, names: Sequence[str]) -> str | None:
    """A message if an image has no mask of its own; else None.

    Args:
        root: folder of the masks.
        names: of the images, relative to the folder of the class folders.
    """
    images: dict[str, list[str]] = defaultdict(list)
    for name in names:
        images[mask_name(name)].append(name)
    for mask, sharing in images.items():
        if len(sharing) > 1:
            return f"{' and '.join(sharing)} would have the same mask, {root / mask}; rename one"
    try:
        missing = sorted(images.keys() - _files(root, images))
    except OSError as error:
        return f"masks: {error.filename or root} cannot be listed: {error.strerror}"
    if not missing:
        return None
    return (
        f"{len(missing)} of {len(names)} images have no mask in {root}: {some_names(missing)}; a "
        "mask is a PNG file with the name of its image, in a folder named like the image's"
    )


def _files(root: Path, masks: Iterable[str]) -> set[str]:
    """Names of the files in the folders where masks are expected."""
    found: set[str] = set()
    for folder in {os.path.dirname(mask) for mask in masks}:  # noqa: PTH120 - a Path each is slow
        try:
            with os.scandir(root / folder) as entries:
                names = (entry.name for entry in entries if entry.is_file())
                found.update(f"{folder}/{name}" if folder else name for name in names)
        except (FileNotFoundError, NotADirectoryError):
            if not root.is_dir():
                raise
    return found
