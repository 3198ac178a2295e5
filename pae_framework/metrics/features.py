"""What metrics need of the images of a set: their features, and statistics of these.

Legend: M images of a set, D width of pooled and S width of spatial features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from pae_framework.errors import DataError
from pae_framework.metrics.feature_statistics import FeatureStatistics, Gaussian

_ROWS = 500
"""Images whose features are added to the statistics at once."""


class InceptionFeatures(NamedTuple):
    """Features (M, D) for FID and (M, S) for sFID, float32; D is 2048 and S is 2023."""

    pool: Tensor
    spatial: Tensor


@dataclass(frozen=True, eq=False)
class SetFeatures:
    """Features of all images of a set.

    Args:
        rows: pooled features (M, D) float32, in the order of the images; M is 0 if they were not
            kept.
        pool: their statistics.
        spatial: statistics of the spatial features.
    """

    rows: Tensor
    pool: FeatureStatistics
    spatial: FeatureStatistics


def collect(parts: Iterable[InceptionFeatures], count: int, keep_rows: bool = True) -> SetFeatures:
    """The features of a set whose images come in parts; keeps no spatial features.

    Args:
        parts: features of some images each.
        count: number of images of all parts.
        keep_rows: whether pooled features of single images are kept: 8 KB each.

    Raises:
        DataError: there are no images.
        RunError: a feature is not finite.
    """
    rows: Tensor | None = None
    pool = spatial = FeatureStatistics(0)
    done = 0
    for part in parts:
        if rows is None:
            pool, spatial = (FeatureStatistics(features.shape[1]) for features in part)
            rows = part.pool.new_empty(count if keep_rows else 0, part.pool.shape[1])
        if keep_rows:
            rows[done : done + len(part.pool)] = part.pool
        done += len(part.pool)
        for statistics, features in ((pool, part.pool), (spatial, part.spatial)):
            for some in features.split(_ROWS):
                statistics.update(some)
    if rows is None:
        raise DataError("there are no images to compute features of")
    return SetFeatures(rows[:done], pool, spatial)


@dataclass(frozen=True, eq=False)
class Reference:
    """What a set of images is compared with; None: not there.

    Args:
        pool: statistics of pooled features.
        spatial: statistics of spatial features.
        rows: pooled features (N, D) of single images, which need not be those of the statistics.
        protocol: what it is, for the protocols of metrics.
        count: number of images behind the statistics; None: unknown.
    """

    pool: Gaussian | None
    spatial: Gaussian | None
    rows: Tensor | None
    protocol: Mapping[str, Any]
    count: int | None = None

    @classmethod
    def of_images(cls, features: SetFeatures, protocol: Mapping[str, Any]) -> Reference:
        """All parts of a reference from the same images."""
        count = features.pool.count
        return cls(features.pool, features.spatial, features.rows, protocol, count)
