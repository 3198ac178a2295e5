"""Outlines of shapes as signed distances: negative inside, 0 on the outline. No torch.

Coordinates (x to the right, y downwards) are scaled so that the circumradius is about 1. Distances
are exact or, near corners, a lower bound, which is enough for antialiasing. Shapes: all (S, S).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]

# Python floats: NumPy scalars would convert every array to float64.
_SQRT3 = math.sqrt(3)


def circle(x: Array, y: Array) -> Array:
    """A disc of radius 0.9."""
    return np.hypot(x, y) - 0.9


def ring(x: Array, y: Array) -> Array:
    """A ring between the radii 0.5 and 0.95."""
    return np.abs(np.hypot(x, y) - 0.725) - 0.225


def square(x: Array, y: Array) -> Array:
    """An upright square of side 1.56."""
    return np.maximum(np.abs(x), np.abs(y)) - 0.78


def diamond(x: Array, y: Array) -> Array:
    """A tall rhomb: half diagonals 0.68 and 1.02."""
    norm = math.hypot(1 / 0.68, 1 / 1.02)
    return (np.abs(x) / 0.68 + np.abs(y) / 1.02 - 1) / norm


def triangle(x: Array, y: Array) -> Array:
    """An equilateral triangle with a corner at the top; circumradius 1.05."""
    side = _SQRT3 / 2 * np.abs(x) - y / 2
    return np.maximum(side, y) - 0.525


def cross(x: Array, y: Array) -> Array:
    """A plus sign with arms of width 0.6."""
    a, b = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(a - 0.92, b - 0.3), np.maximum(a - 0.3, b - 0.92))


def star(x: Array, y: Array) -> Array:
    """A five-pointed star with a point at the top; radii 1.05 and 0.45."""
    # By symmetry fold the plane into half a point, whose outline is a segment from tip to notch.
    turn = math.pi / 5
    angle = np.abs(np.mod(np.arctan2(x, -y) + turn, 2 * turn) - turn)
    radius = np.hypot(x, y)
    along, across = radius * np.cos(angle), radius * np.sin(angle)
    tip, notch = 1.05, (0.45 * math.cos(turn), 0.45 * math.sin(turn))
    edge = math.hypot(tip - notch[0], notch[1])
    return ((along - tip) * notch[1] + across * (tip - notch[0])) / edge


def hexagon(x: Array, y: Array) -> Array:
    """A regular hexagon with corners at the left and right; circumradius 0.95."""
    a, b = np.abs(x), np.abs(y)
    slanted = _SQRT3 / 2 * a + b / 2
    return np.maximum(slanted, b) - 0.95 * _SQRT3 / 2


OUTLINES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": circle,
    "square": square,
    "triangle": triangle,
    "star": star,
    "ring": ring,
    "cross": cross,
    "diamond": diamond,
    "hexagon": hexagon,
}
"""The kinds of shapes, in the order of their labels."""
