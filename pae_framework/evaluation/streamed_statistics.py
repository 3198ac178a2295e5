"""Statistics of features of many images, none of which are kept."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import torch

from pae_framework.errors import DataError
from pae_framework.evaluation.shared_batches import BATCH, SharedBatches
from pae_framework.metrics.feature_files import read_features, write_features
from pae_framework.metrics.feature_statistics import FeatureStatistics

SAVED_EVERY = 100
"""Batches after which the statistics so far are saved; an interruption loses as many."""


def streamed_statistics(
    shared: SharedBatches, function: str, count: int, file: Path | None, *arguments: str
) -> FeatureStatistics:
    """Statistics of the features of images 0 to ``count`` - 1; resumes from those in a file.

    Args:
        shared: computes features.
        function: its function that takes indices of images (B,).
        count: number of images.
        file: of the statistics, named by all that they depend on; None: they are not kept.
        arguments: further arguments of the function.

    Raises:
        DataError: there are fewer than two images.
        WriteError: the file cannot be written.
    """
    if count < 2:
        raise DataError(f"statistics need at least 2 training images, not {count}")
    kept = None if file is None else read_features(file)
    statistics = None if kept is None else FeatureStatistics.restored(kept)
    start = 0 if statistics is None else statistics.count
    if start == count and statistics is not None:
        return statistics
    batches = torch.arange(start, count).split(BATCH)
    with closing(shared.stream(function, batches, *arguments)) as results:
        for number, (features,) in enumerate(results, start=1):
            statistics = statistics or FeatureStatistics(features.shape[1])
            statistics.update(features)
            if file is not None and (number % SAVED_EVERY == 0 or number == len(batches)):
                write_features(file, statistics.tensors)
    assert statistics is not None
    return statistics
