"""Decode image files, and note what they say besides their pixels.

Every image file of a user is read through :func:`open_image`.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageCms

from pae_framework.data.image_notes import NOTES
from pae_framework.errors import DataError, PaeError
from pae_framework.system.files import file_problem

T = TypeVar("T")

_DRAWINGS = ("EPS", "WMF")
"""Formats that hold drawing commands, which Pillow leaves to other programs."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by its EXIF orientation."""


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image file after a check of its header; decode it inside the block.

    Raises:
        DataError: the file is damaged, too large to decode, or no image of a fixed size and range,
            or anything else failed in the block; names the file.
    """
    if problem := file_problem(path):
        raise DataError(problem)
    try:
        # Pillow warns about files that it reads all the same, once per file.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            _check_header(image)
            yield image
    except PaeError:
        raise
    except Exception as error:  # decoders raise errors of many types on damaged files
        raise DataError(f"{path}: cannot be read as an image: {_reason(error)}") from error


def upright_rgb(image: Image.Image, path: Path) -> Image.Image:
    """The first frame of an open image file as 8-bit RGB, turned as its EXIF data says.

    Colors are those in the file: transparency and color profiles are ignored, but noted.
    """
    image.load()
    turn = _or_default(_turn, image, None)
    for note in _notes(image, turn):
        NOTES.add(note, path)
    rgb = _to_8_bit(image)
    rgb = rgb if rgb.mode == "RGB" else rgb.convert("RGB")
    if _or_default(_has_frames, image, False):
        NOTES.add("several frames, of which the first is read", path)
    return rgb if turn is None else rgb.transpose(turn)


def _check_header(image: Image.Image) -> None:
    width, height = image.size
    if image.format in _DRAWINGS:
        raise ValueError(f"{image.format} files hold drawing commands; save it as PNG")
    if width < 1 or height < 1:
        raise ValueError(f"its header says {width} x {height} pixels")
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has no fixed range of values; save it with 8 bits")


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory to decode it"
    if isinstance(error, OSError | ValueError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _to_8_bit(image: Image.Image) -> Image.Image:
    # Pillow's own conversion of 16 bits clips at 255.
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    return image


# --- besides the pixels ---------------------------------------------------------------------------


def _notes(image: Image.Image, turn: Image.Transpose | None) -> Iterator[str]:
    if turn is not None:
        yield "turned upright, as EXIF data says"
    if image.mode == "CMYK":
        yield "CMYK, converted to RGB without a color profile"
    if _or_default(_is_transparent, image, False):
        yield "transparent pixels, read with their stored colors"
    profile = image.info.get("icc_profile")
    name = _profile_name(profile) if isinstance(profile, bytes) and profile else "sRGB"
    if "srgb" not in name.lower():
        yield f"color profile {name!r}, read as sRGB"


def _or_default(fact: Callable[[Image.Image], T], image: Image.Image, default: T) -> T:
    """A fact besides the pixels. If it is damaged, the pixels are read all the same."""
    try:
        return fact(image)
    except Exception:
        return default


def _turn(image: Image.Image) -> Image.Transpose | None:
    return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))


def _is_transparent(image: Image.Image) -> bool:
    """Whether a pixel is not opaque."""
    if not image.has_transparency_data:
        return False
    if image.mode.startswith("I;16"):
        return True
    return bool(np.asarray(image.convert("RGBA").getchannel("A")).min() < 255)


def _has_frames(image: Image.Image) -> bool:
    # A photo with a preview or a depth map behind it is MPO.
    return image.format != "MPO" and getattr(image, "is_animated", False)


@lru_cache(maxsize=16)
def _profile_name(profile: bytes) -> str:
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.getProfileDescription(opened).strip()[:60]
    except Exception:
        return "unreadable"
