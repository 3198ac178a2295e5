"""Generated scenes: coloured shapes before a textured background, with exact masks."""

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
from pae_framework.contracts import DataSource, LabelledImage
from pae_framework.seeding import generator

_KINDS = tuple(OUTLINES)
_NUMBERS_PER_SHAPE = 8
_NUMBERS_FOR_BACKGROUND = 8


class Shapes(DataSource):
    """Image i is drawn from (seed, split, i) each time it is read; nothing is stored.

    The class is the kind of the large shape, and classes take turns, so that the first n images
    are as balanced as n allows. Mask: 0 background, 1 the large shape, 2, 3, ... the small ones.
    """

    def __init__(self, config: ShapesConfig, image_size: int):
        super().__init__(config, image_size)
        self._settings = config
        # Pixel centres in a frame where the image spans [-1, 1]: x to the right, y downwards.
        axis = ((np.arange(image_size) + 0.5) * 2 / image_size - 1).astype(np.float32)
        self._x, self._y = np.meshgrid(axis, axis)

    @property
    def class_names(self) -> Sequence[str]:
        """The kinds of shapes."""
        return _KINDS

    def __len__(self) -> int:
        return self._settings.count

    def __getitem__(self, index: int) -> LabelledImage:
        background, shapes = self._scene(index)
        picture = _background(self._x, self._y, background)
        for shape in shapes:
            distance = shape.distance(self._x, self._y)
            # One pixel is 2 / S wide: coverage falls from 1 to 0 across the pixel on the outline.
            coverage = np.clip(0.5 - distance * (self.image_size / 2), 0, 1)
            picture += coverage * (shape.shading(self._x, self._y) - picture)
        pixels = np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)
        return LabelledImage(torch.from_numpy(pixels), index % len(_KINDS))

    def mask(self, index: int) -> Tensor:
        """Which shape each pixel centre lies in, the frontmost one; (S, S) int64."""
        segments = np.zeros(self._x.shape, dtype=np.int64)
        _, shapes = self._scene(index)
        for place, shape in enumerate(shapes):
            # Shapes are drawn back to front, the large one, which is 1, last.
            segments[shape.distance(self._x, self._y) < 0] = len(shapes) - place
        return torch.from_numpy(segments)

    def _scene(self, index: int) -> tuple[Sequence[float], list[Shape]]:
        """Numbers of the background, and the shapes from back to front."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        count = self._settings.objects
        random = generator("shapes", self._settings.seed, self._settings.split, index)
        needed = _NUMBERS_FOR_BACKGROUND + _NUMBERS_PER_SHAPE * count
        numbers: list[float] = torch.rand(needed, generator=random).tolist()
        background, rest = numbers[:_NUMBERS_FOR_BACKGROUND], numbers[_NUMBERS_FOR_BACKGROUND:]
        parts = [rest[_NUMBERS_PER_SHAPE * k :][:_NUMBERS_PER_SHAPE] for k in range(count)]
        small = [_small_shape(part) for part in parts[1:]]
        return background, [*small, _large_shape(_KINDS[index % len(_KINDS)], parts[0])]


@dataclass(frozen=True)
class Shape:
    """One shape: where it lies in [-1, 1], how large, how turned (radians), its RGB colour."""

    kind: str
    x: float
    y: float
    radius: float
    angle: float
    colour: tuple[float, float, float]

    def distance(self, x: Array, y: Array) -> Array:
        """Signed distance (S, S) to the outline in units of the frame, negative inside."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        u, v = (x - self.x) / self.radius, (y - self.y) / self.radius
        turned: Array = OUTLINES[self.kind](cos * u + sin * v, cos * v - sin * u) * self.radius
        return turned

    def shading(self, x: Array, y: Array) -> Array:
        """Its colour (3, S, S), lit from above on the left."""
        light = 1 - 0.22 * ((x - self.x) + (y - self.y)) / self.radius
        return _rgb(self.colour) * light


def _large_shape(kind: str, numbers: Sequence[float]) -> Shape:
    a, b, c, d, hue, saturation, _, _ = numbers
    return Shape(
        kind,
        x=0.5 * a - 0.25,
        y=0.5 * b - 0.25,
        radius=0.5 + 0.16 * c,
        angle=(d - 0.5) * 0.8,  # upright within 23 degrees: a diamond never becomes a square
        colour=colorsys.hsv_to_rgb(hue, 0.6 + 0.35 * saturation, 0.95),
    )


def _small_shape(numbers: Sequence[float]) -> Shape:
    a, b, c, d, hue, saturation, kind, _ = numbers
    return Shape(
        _KINDS[int(kind * len(_KINDS))],
        x=1.8 * a - 0.9,
        y=1.8 * b - 0.9,
        radius=0.18 + 0.14 * c,
        angle=(d - 0.5) * 0.8,
        colour=colorsys.hsv_to_rgb(hue, 0.5 + 0.4 * saturation, 0.85),
    )


def _background(x: Array, y: Array, numbers: Sequence[float]) -> Array:
    """A dull gradient between two shades with faint waves, (3, S, S)."""
    hue, drift, direction, dark, wave_direction, pitch, phase, strength = numbers
    value = 0.25 + 0.3 * dark
    first = _rgb(colorsys.hsv_to_rgb(hue, 0.3, value))
    second = _rgb(colorsys.hsv_to_rgb((hue + 0.3 * drift) % 1, 0.35, value + 0.2))
    blend = 0.5 + 0.5 * _along(x, y, direction) / math.sqrt(2)
    waves = np.sin(_along(x, y, wave_direction) * (6 + 10 * pitch) + 2 * math.pi * phase)
    texture = (0.02 + 0.05 * strength) * waves
    return first + blend * (second - first) + texture


def _along(x: Array, y: Array, turn: float) -> Array:
    """Coordinate along a direction, given as a share of a full turn."""
    angle = 2 * math.pi * turn
    return math.cos(angle) * x + math.sin(angle) * y


def _rgb(colour: tuple[float, float, float]) -> Array:
    return np.array(colour, dtype=np.float32)[:, None, None]
