"""Templates that escape everything, and pictures as data URIs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pae_framework.report.encoding import data_uri
from pae_framework.report.metrics import group_title, readable


@dataclass(frozen=True)
class Chart:
    """A chart as a data URI; ``alt`` describes it for screen readers."""

    uri: str
    alt: str


def chart(svg: str, alt: str) -> Chart:
    """An SVG as a separate image inside the page, so that ids of several charts do not collide."""
    return Chart(data_uri("image/svg+xml", svg.encode()), alt)


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
