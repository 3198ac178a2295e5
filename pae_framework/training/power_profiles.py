"""Post-hoc EMA: power-function profiles and how stored ones combine into others. No torch.

As in EDM2 (Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models",
arXiv 2312.02696). After t steps, the profile of exponent g weighs the weights of time s, 0 < s <=
t, by p(s) = (g + 1) s^g / t^(g+1). Its relative length is its standard deviation divided by t. A
profile that was not tracked is the least-squares combination of stored ones of several exponents
and steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


def exponent(length: float) -> float:
    """The exponent g >= 0 of the profile with a relative length, up to that of the plain mean.

    The mean, g = 0, has the relative length sqrt(1/12) = 0.289.

    With length^2 = (g + 1) / ((g + 2)^2 (g + 3)), g is the largest root of a cubic.
    """
    inverse = length**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def decay(length: float, step: int) -> float:
    """The decay of the average at an optimizer step, counted from 1: (1 - 1/step)^(g+1).

    Each step then has exactly the weight that the profile has between this step and the one before.
    """
    return (1 - 1 / step) ** (exponent(length) + 1)


@dataclass(frozen=True, order=True)
class Profile:
    """A profile by its relative length, after ``step`` optimizer steps."""

    length: float
    step: int


@dataclass(frozen=True)
class Combination:
    """Factors of stored profiles whose sum is nearest to a wanted one.

    ``error`` is the L2 norm of the difference divided by that of the wanted profile.
    """

    factors: tuple[float, ...]
    error: float


def combine(stored: Sequence[Profile], wanted: Profile) -> Combination:
    """The combination of stored profiles that is nearest to a wanted one in L2."""
    products = log_products([*stored, wanted])
    norms = np.diag(products) / 2
    cosines = np.exp(products - norms[:, None] - norms)  # inner products of unit profiles
    gram, target = cosines[:-1, :-1], cosines[:-1, -1]
    solution, *_ = np.linalg.lstsq(gram, target, rcond=None)
    error = math.sqrt(max(0.0, float(1 + solution @ gram @ solution - 2 * solution @ target)))
    factors = solution * np.exp(norms[-1] - norms[:-1])
    return Combination(tuple(factors.tolist()), error)


def log_products(profiles: Sequence[Profile]) -> npt.NDArray[np.float64]:
    """Logarithms of the inner products of n profiles, n x n.

    The integral of (g + 1) s^g / t^(g+1) times (h + 1) s^h / u^(h+1), up to s = min(t, u).
    """
    g = np.array([exponent(profile.length) for profile in profiles])
    log_step = np.log([float(profile.step) for profile in profiles])
    outside = np.log(g + 1) - (g + 1) * log_step
    total = g[:, None] + g + 1
    return outside[:, None] + outside + total * np.minimum.outer(log_step, log_step) - np.log(total)
