"""Pictures as data URIs, small enough for a page: PNG for few pixels, else WebP."""

from __future__ import annotations

import io
from base64 import b64encode

from PIL import Image

from pae_framework.report.pictures import png_bytes

_EXACT = 64
"""Images up to this side keep every pixel value, px."""
_TILE = 256
"""Larger images of a row are reduced to this side, px."""
_WIDTHS = (1400, 1000, 700, 480)
"""Longer sides that a picture of an evaluator is reduced to until it fits, px."""
_LOSSLESS = 60_000
"""A PNG of up to this many characters is kept, even if a WebP is shorter."""
_PICTURE = 400_000
"""Characters of one picture of an evaluator."""


def data_uri(media_type: str, content: bytes) -> str:
    """Content inside the page."""
    return f"data:{media_type};base64,{b64encode(content).decode()}"


def tile_uri(image: Image.Image) -> str:
    """One image of a row: exact if it is small, else at most 256 px and lossy."""
    if max(image.size) <= _EXACT:
        return data_uri("image/png", png_bytes(image))
    return data_uri("image/webp", _webp(_reduced(image, _TILE)))


def fitted_uri(image: Image.Image, budget: int) -> str:
    """A picture of any mode as a small PNG, else the smaller of PNG and WebP, until it fits.

    Raises:
        ValueError: it does not fit into ``budget`` characters, or its pixels are not of 8 bits.
    """
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"pixels of mode {image.mode}, not of 8 bits")
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    plain = image.convert("RGBA" if has_alpha else "RGB")
    limit = min(budget, _PICTURE)
    for width in _WIDTHS:
        smaller = _reduced(plain, width)
        uri = data_uri("image/png", png_bytes(smaller))
        if len(uri) > _LOSSLESS:
            uri = min(uri, data_uri("image/webp", _webp(smaller)), key=len)
        if len(uri) <= limit:
            return uri
    raise ValueError("larger than the page allows for all pictures of evaluators")


def _reduced(image: Image.Image, longest: int) -> Image.Image:
    reduced = image.copy()
    reduced.thumbnail((longest, longest))
    return reduced


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=85, method=2)
    return buffer.getvalue()
