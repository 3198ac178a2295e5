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
from typing import TypeVar, cast

from PIL import ExifTags, Image, ImageCms

from pae_framework.data.data_settings import STORED, Background
from pae_framework.data.image_notes import NOTES, Note
from pae_framework.errors import DataError
from pae_framework.system.files import file_problem

T = TypeVar("T")

MOST_PIXELS = 64_000_000
"""Larger images are not decoded, because a small file can hold any number of equal pixels."""
MOST_ALONG_SIDE = 1_000_000
"""Longer images are not decoded: each of their rows takes memory."""

# Pillow warns about files that it reads all the same, once per file.
warnings.filterwarnings("ignore", module=r"PIL\.")

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

_TURNED = range(5, 9)
"""EXIF orientations that exchange height and width."""


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image file after a check of its header; pixels are decoded inside the block.

    A JPEG file of more than :data:`MOST_PIXELS` is decoded at half its width and height. Enclose
    what decodes pixels in :func:`decoding`.

    Raises:
        DataError: the file is missing or damaged, too large to decode, or no image of a fixed size
            and range; names the file.
    """
    if problem := file_problem(path):
        raise DataError(problem)
    with _opened(path, path) as image:
        yield image


@contextmanager
def open_image_bytes(content: bytes, name: str) -> Iterator[Image.Image]:
    """The same for the content of an image file; ``name`` says which one in messages."""
    with _opened(io.BytesIO(content), name) as image:
        yield image


@contextmanager
def _opened(file: Path | io.BytesIO, name: Path | str) -> Iterator[Image.Image]:
    with decoding(name):
        image = Image.open(file)
    with image:
        with decoding(name):
            _check_header(image)
        yield image


@contextmanager
def decoding(path: Path | str, errors: type[Exception] = Exception) -> Iterator[None]:
    """Name the file in errors of Pillow, whose decoders raise errors of any type on damaged files.

    Raises:
        DataError: the block raised one of ``errors``.
    """
    try:
        yield
    except errors as error:
        raise DataError(f"{path}: cannot be read as an image: {_reason(error)}") from error


def upright_size(path: Path) -> tuple[int, int]:
    """Height and width in px of an image file, turned as its EXIF data says; reads its header.

    Raises:
        DataError: the file is missing or damaged; names it.
    """
    with open_image(path) as image, decoding(path):
        # Without the test, Pillow reads a whole PNG file in search of them.
        exif = image.getexif() if "exif" in image.info else {}
        turned = exif.get(ExifTags.Base.Orientation, 1) in _TURNED
        return (image.width, image.height) if turned else (image.height, image.width)


def upright_rgb(
    image: Image.Image,
    path: Path | str,
    background: Background = STORED,
    note: Note | None = None,
) -> Image.Image:
    """The first frame of an open image file as 8-bit RGB, turned as its EXIF data says.

    Color profiles are ignored, but noted, and so is transparency without a background. Only the
    result is in memory at the end.

    Args:
        image: the open file.
        path: what messages call it.
        background: color over which transparent pixels are composited.
        note: takes the notes; None: those of the process.

    Raises:
        DataError: the file is damaged, or there is not enough memory; names the file.
    """
    with decoding(path):
        image.load()
    note = note or NOTES.add
    turn = _or_default(_turn, image, None)
    transparent = _or_default(_is_transparent, image, False)
    for text in _notes(image, turn, transparent and background == STORED):
        note(text, path)
    with decoding(path):
        eight = _to_8_bit(image)
        rgb = eight if eight.mode == "RGB" else eight.convert("RGB")
        if transparent and background != STORED:
            rgb = _composited(image, rgb, background)
    if _or_default(_has_frames, image, False):
        note("several frames, of which the first is read", path)
    if rgb is not image:
        image.close()
    if turn is None:
        return rgb
    with decoding(path, MemoryError):
        turned = rgb.transpose(turn)
    rgb.close()
    return turned


def reduce_jpeg(image: Image.Image, size: int) -> None:
    """Let an open JPEG file be decoded at a half, a quarter or an eighth, at least ``size`` px.

    That is how often ADM's crop would halve it, but by dropping frequencies, not by averaging
    pixels, so the result differs. Other files, and JPEG files that are reduced already, stay.
    """
    if image.format in ("JPEG", "MPO") and getattr(image, "decoderconfig", None) == ():
        image.draft(None, (size, size))


def _check_header(image: Image.Image) -> None:
    if image.format in _DRAWINGS:
        raise ValueError(f"{image.format} files hold drawing commands; save it as PNG")
    if min(image.size) < 1:
        raise ValueError(f"its header says {image.width} x {image.height} pixels")
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has no fixed range of values; save it with 8 bits")
    if image.format in ("JPEG", "MPO") and image.width * image.height > MOST_PIXELS:
        image.draft(None, (image.width // 2, image.height // 2))
    width, height = image.size
    if width * height > MOST_PIXELS or max(image.size) > MOST_ALONG_SIDE:
        raise ValueError(
            f"it has {width} x {height} pixels, but at most {MOST_PIXELS // 10**6} million are "
            f"read, and {MOST_ALONG_SIDE // 10**6} million along a side; make it smaller"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory to decode it"
    if isinstance(error, OSError | ValueError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _to_8_bit(image: Image.Image) -> Image.Image:
    # Pillow's own conversion of 16 bits clips at 255.
    if image.mode.startswith("I;16"):
        import numpy as np  # `pae check` opens images, too, and must start fast

        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image


def _composited(image: Image.Image, rgb: Image.Image, background: Background) -> Image.Image:
    """The colors of an image with transparent pixels over a background."""
    result = Image.new("RGB", rgb.size, background)
    result.paste(rgb, mask=_opacity(image))
    return result


def _opacity(image: Image.Image) -> Image.Image:
    """How opaque each pixel is, from 0 to 255."""
    if image.mode.startswith("I;16"):
        # Pillow converts 16 bits with a transparent gray value to no other mode.
        import numpy as np

        opaque = np.asarray(image) != image.info["transparency"]
        return Image.fromarray(opaque.astype(np.uint8) * 255)
    return (image if "A" in image.getbands() else image.convert("RGBA")).getchannel("A")


# --- besides the pixels ---------------------------------------------------------------------------


def _notes(
    image: Image.Image, turn: Image.Transpose | None, ignores_transparency: bool
) -> Iterator[str]:
    if turn is not None:
        yield "turned upright, as EXIF data says"
    if image.mode == "CMYK":
        yield "CMYK, converted to RGB without a color profile"
    if ignores_transparency:
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
    lowest, _ = cast(tuple[int, int], _opacity(image).getextrema())
    return lowest < 255


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
