"""What convergence is compared by, read from finished runs. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pae_framework.errors import UsageError
from pae_framework.registry import Registry
from pae_framework.report.convergence import TrainedRun
from pae_framework.runs.data_record import read_record
from pae_framework.runs.opened import OpenedRun, open_run
from pae_framework.runs.run_metrics import read_metrics


def trained_runs(paths: Sequence[Path], registry: Registry) -> list[TrainedRun]:
    """The metrics of runs, and the batches and the number of images of their generators.

    Raises:
        UsageError: a path is no run, is a sweep, is given twice, or the run has no results.
        RunError: a file of the run is damaged.
        RecipeError: its recipe no longer loads.
    """
    places = [path.expanduser().resolve() for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise UsageError(f"{path} is given twice; name each run once")
    names = Counter(place.name for place in places)
    return [
        _trained(path, place.name if names[place.name] == 1 else str(path), registry)
        for path, place in zip(paths, places, strict=True)
    ]


def _trained(path: Path, label: str, registry: Registry) -> TrainedRun:
    opened = open_run(path, registry)
    metrics = read_metrics(opened.directory)
    if metrics is None:
        raise UsageError(f"{path} has no results yet; see `pae status {path}`")
    generator = opened.loaded.recipe.generator
    trained = generator is not None and generator.weights is None
    batch = generator.train.batch_size if generator is not None and trained else None
    return TrainedRun(label, metrics, batch, _training_images(opened))


def _training_images(opened: OpenedRun) -> int | None:
    """The number of training images, as a stage recorded it or as the recipe says."""
    folders = (opened.directory.stage(stage).path for stage in opened.plan.values())
    record = read_record(folders, "train")
    if record is not None and record.images is not None:
        return record.images
    return opened.loaded.recipe.data.train.config.image_count()
