"""Generated scenes: colored shapes before a textured background, with exact masks.

Shapes: S image side in px; images (3, S, S), coordinates, distances and masks (S, S).
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pae_datasets.config import ShapesConfig
from pae_datasets.outlines import OUTLINES, Array
from pae_framework.contracts import DataSource, LabeledImage
from pae_framework.seeding import generator

_KINDS = tuple(OUTLINES)
_NUMBERS = 8
"""Random numbers per shape, and for the background."""


class Shapes(DataSource):
    """Generated scenes. Image i is a function of (seed, split, i); nothing is stored.

    The class is the kind of the large shape. Classes alternate, so that the first n images are
    balanced. Mask: 0 is the background, 1 the large shape, 2, 3, ... the small ones.
    """

    def __init__(self, config: ShapesConfig, image_size: int):
        super().__init__(config, image_size)
        self._settings = config
        # Pixel centers in a frame where the image spans [-1, 1]: x to the right, y downwards.
        axis = ((np.arange(image_size) + 0.5) * 2 / image_size - 1).astype(np.float32)
        self._x, self._y = np.meshgrid(axis, axis)

    @property
    def class_names(self) -> Sequence[str]:
        """The kinds of shapes."""
        return _KINDS

    def __len__(self) -> int:
        return self._settings.count

    def __getitem__(self, index: int) -> LabeledImage:
        background, shapes = self._scene(index)
        image = _background(self._x, self._y, background)  # (3, S, S)
        for shape in shapes:
            distance = shape.distance(self._x, self._y)
            # One pixel is 2 / S wide: coverage falls from 1 to 0 across the pixel on the outline.
            coverage = np.clip(0.5 - distance * (self.image_size / 2), 0, 1)
            image += coverage * (shape.shading(self._x, self._y) - image)
        pixels = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
        return LabeledImage(torch.from_numpy(pixels), index % len(_KINDS))

    def labels(self) -> Sequence[int]:
        """The kind of each image's large shape."""
        return [index % len(_KINDS) for index in range(len(self))]

    def mask(self, index: int) -> Tensor:
        """Mask (S, S) int64: the frontmost shape at each pixel center."""
        segments = np.zeros(self._x.shape, dtype=np.int64)
        _, shapes = self._scene(index)
        for position, shape in enumerate(shapes):
            # From back to front; the last is the large shape, segment 1.
            segments[shape.distance(self._x, self._y) < 0] = len(shapes) - position
        return torch.from_numpy(segments)

    def _scene(self, index: int) -> tuple[Sequence[float], list[Shape]]:
        """Random numbers of the background, and the shapes from back to front."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        count = self._settings.objects
        random = generator("shapes", self._settings.seed, self._settings.split, index)
        # A row for the background, one for the large shape, one for each small one.
        numbers = torch.rand((1 + count) * _NUMBERS, generator=random).view(-1, _NUMBERS).tolist()
        small = [_small_shape(row) for row in numbers[2:]]
        return numbers[0], [*small, _large_shape(_KINDS[index % len(_KINDS)], numbers[1])]


@dataclass(frozen=True)
class Shape:
    """A shape: kind, center in [-1, 1], radius, rotation in radians, RGB color."""

    kind: str
    x: float
    y: float
    radius: float
    angle: float
    color: tuple[float, float, float]

    def distance(self, x: Array, y: Array) -> Array:
        """Signed distance (S, S) to the outline, negative inside; the image side is 2."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        u, v = (x - self.x) / self.radius, (y - self.y) / self.radius
        distance: Array = OUTLINES[self.kind](cos * u + sin * v, cos * v - sin * u) * self.radius
        return distance

    def shading(self, x: Array, y: Array) -> Array:
        """Its color (3, S, S), lit from the top left."""
        light = 1 - 0.22 * ((x - self.x) + (y - self.y)) / self.radius
        return _rgb(self.color) * light


def _large_shape(kind: str, numbers: Sequence[float]) -> Shape:
    a, b, c, d, hue, saturation, _, _ = numbers
    return Shape(
        kind,
        x=0.5 * a - 0.25,
        y=0.5 * b - 0.25,
        radius=0.5 + 0.16 * c,
        angle=(d - 0.5) * 0.8,  # upright within 23 degrees: a diamond never becomes a square
        color=colorsys.hsv_to_rgb(hue, 0.6 + 0.35 * saturation, 0.95),
    )


def _small_shape(numbers: Sequence[float]) -> Shape:
    a, b, c, d, hue, saturation, kind, _ = numbers
    return Shape(
        _KINDS[int(kind * len(_KINDS))],
        x=1.8 * a - 0.9,
        y=1.8 * b - 0.9,
        radius=0.18 + 0.14 * c,
        angle=(d - 0.5) * 0.8,
        color=colorsys.hsv_to_rgb(hue, 0.5 + 0.4 * saturation, 0.85),
    )


def _background(x: Array, y: Array, numbers: Sequence[float]) -> Array:
    """A dull gradient between two colors with faint waves, (3, S, S)."""
    hue, drift, direction, dark, wave_direction, pitch, phase, strength = numbers
    value = 0.25 + 0.3 * dark
    first = _rgb(colorsys.hsv_to_rgb(hue, 0.3, value))
    second = _rgb(colorsys.hsv_to_rgb((hue + 0.3 * drift) % 1, 0.35, value + 0.2))
    blend = 0.5 + 0.5 * _along(x, y, direction) / math.sqrt(2)
    waves = np.sin(_along(x, y, wave_direction) * (6 + 10 * pitch) + 2 * math.pi * phase)
    texture = (0.02 + 0.05 * strength) * waves
    return first + blend * (second - first) + texture


def _along(x: Array, y: Array, turn: float) -> Array:
    """Coordinate along a direction, which is a fraction of a full turn."""
    angle = 2 * math.pi * turn
    return math.cos(angle) * x + math.sin(angle) * y


def _rgb(color: tuple[float, float, float]) -> Array:
    return np.array(color, dtype=np.float32)[:, None, None]
