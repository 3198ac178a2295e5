"""Templates that escape everything, and pictures as data URIs."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from pae_framework.report.metrics import group_title, readable
from pae_framework.report.pictures import png_bytes


@dataclass(frozen=True)
class Chart:
    """A chart as a data URI; ``alt`` describes it for screen readers."""

    uri: str
    alt: str


def chart(svg: str, alt: str) -> Chart:
    """An SVG as a separate image inside the page, so that ids of several charts do not collide."""
    return Chart(_uri("image/svg+xml", svg.encode()), alt)


def png_uri(image: Image.Image) -> str:
    """A picture inside the page."""
    return _uri("image/png", png_bytes(image))


def fill(template: str, **values: Any) -> str:
    """Render a template of this package; an undefined name is an error."""
    return _environment().get_template(template).render(**values)


def paragraphs(text: str) -> list[str]:
    """Text split at blank lines."""
    return [text.strip() for text in re.split(r"\n\s*\n", text) if text.strip()]


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 05 s``, ``2 h 07 min``; below ten seconds with one decimal."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pae_framework.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": duration,
        "paragraphs": paragraphs,
        "readable": readable,
        "title": group_title,
    }
    return environment


def _uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{b64encode(content).decode()}"
