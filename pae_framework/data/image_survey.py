"""What image files are like: sizes, modes, transparency, damage. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from pae_framework.data.image_files import decoding, open_image, upright_size
from pae_framework.errors import DataError

T = TypeVar("T")

MOST = 2000
"""Files that are read by default."""
_THREADS = 4
_REDUCED = 8
"""JPEG files are decoded at this fraction of their size, which finds the same damage."""


@dataclass(frozen=True)
class ImageFacts:
    """What one file says."""

    width: int
    height: int
    mode: str
    transparent: bool
    """Whether it may have transparent pixels."""


@dataclass(frozen=True)
class Survey:
    """What some image files are like."""

    facts: Sequence[ImageFacts]
    """Of the readable ones."""
    problems: Mapping[str, str]
    """Why the others cannot be read, by name; the path included."""

    @property
    def short_sides(self) -> Sequence[int]:
        """Shorter sides in px, sorted."""
        return sorted(min(facts.width, facts.height) for facts in self.facts)

    @property
    def modes(self) -> Counter[str]:
        """Number of images by Pillow's mode."""
        return Counter(facts.mode for facts in self.facts)

    @property
    def transparent(self) -> int:
        """Number of images that may have transparent pixels."""
        return sum(facts.transparent for facts in self.facts)


def survey(files: Mapping[str, Path], most: int = MOST) -> Survey:
    """Read image files as far as it takes to notice that they are damaged.

    Args:
        files: paths by name.
        most: number of files to read; of more, evenly spaced ones.
    """
    names = evenly_spaced(list(files), most)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = dict(zip(names, pool.map(_examine, map(files.__getitem__, names)), strict=True))
    return Survey(
        [facts for facts in found.values() if isinstance(facts, ImageFacts)],
        {name: problem for name, problem in found.items() if isinstance(problem, str)},
    )


def common_side(files: Mapping[str, Path], most: int = MOST) -> int | None:
    """The shorter side in px of all images that can be read; None if they differ or none can.

    Args:
        files: paths by name; only their headers are read.
        most: number of files to read; of more, evenly spaced ones.
    """
    chosen = [files[name] for name in evenly_spaced(list(files), most)]
    with ThreadPoolExecutor(_THREADS) as pool:
        sides = {side for side in pool.map(_shorter_side, chosen) if side is not None}
    return sides.pop() if len(sides) == 1 else None


def _shorter_side(path: Path) -> int | None:
    try:
        return min(upright_size(path))
    except DataError:
        return None


def evenly_spaced(items: Sequence[T], most: int) -> Sequence[T]:
    """All items, or as many of them as ``most``, evenly spaced."""
    count = min(len(items), most)
    return [items[index * len(items) // count] for index in range(count)]


def _examine(path: Path) -> ImageFacts | str:
    try:
        with open_image(path) as image, decoding(path):
            facts = ImageFacts(*image.size, image.mode, image.has_transparency_data)
            _require_whole(image)
    except DataError as error:
        return str(error)
    return facts


def _require_whole(image: Image.Image) -> None:
    """Raise one of Pillow's errors if the file is damaged."""
    if image.format == "PNG":
        image.verify()  # the checksums of all chunks, without decoding them
        return
    if image.format in ("JPEG", "MPO"):
        image.draft(None, (image.width // _REDUCED, image.height // _REDUCED))
    image.load()
