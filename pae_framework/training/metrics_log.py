"""Metrics of a training: averaged over steps and logged as JSON lines."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import fsum
from pathlib import Path
from types import MappingProxyType

import torch

from pae_framework.contracts import Batch, LossTerms
from pae_framework.lifecycle import LoggedMetrics
from pae_framework.metrics_file import METRICS, describe_gap, read_log
from pae_framework.system.file_errors import writing
from pae_framework.system.files import write_text
from pae_framework.world import World

logger = logging.getLogger(__name__)


def tell_nobody(metrics: LoggedMetrics) -> None:
    """The listener of a log that nobody follows."""


class MetricsLog:
    """Appends records ``{"step": n, ...}`` to ``metrics.jsonl`` and tells a listener.

    Records of steps after the one that a training resumes from are removed, so no step appears
    twice.

    Args:
        directory: of the stage.
        step: the step that the training resumes from.
        logged: the last step up to ``step`` that has a record; None: ``step``.
        listener: called with each line once it is written.
    """

    def __init__(
        self,
        directory: Path,
        step: int,
        logged: int | None = None,
        listener: Callable[[LoggedMetrics], None] = tell_nobody,
    ):
        self._path, self._resumed_from, self._listener = directory / METRICS, step, listener
        kept = [record for record in read_log(self._path) if record["step"] <= step]
        if gap := describe_gap(self._path, kept, step if logged is None else logged):
            logger.warning("%s", gap)
        write_text(self._path, "".join(json.dumps(record) + "\n" for record in kept))
        with writing(self._path):
            # Without a buffer, so that nothing is left to write when it is closed.
            self._file = self._path.open("ab", buffering=0)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of one step."""
        with writing(self._path):
            self._file.write((json.dumps({"step": step, **values}) + "\n").encode())
        self._listener(LoggedMetrics(step, MappingProxyType(dict(values)), self._resumed_from))

    def sync(self) -> None:
        """Wait until the records are on the disk, as a checkpoint of their last step needs them."""
        with writing(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class MetricAverages:
    """Collects the loss terms of steps and averages them for a log line; measures the speed.

    Args:
        images_per_step: images of all processes, for ``images_per_s``.
        world: terms are summed over its processes.
    """

    def __init__(self, images_per_step: int, world: World):
        self._images, self._world = images_per_step, world
        self._terms: list[LossTerms] = []
        self._steps = 0
        self._waited = 0.0
        self._since = time.monotonic()

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches and measure the time spent waiting for them."""
        iterator = iter(batches)
        while True:
            start = time.monotonic()
            batch = next(iterator, None)
            self._waited += time.monotonic() - start
            if batch is None:
                return
            yield batch

    def add(self, terms: LossTerms) -> None:
        """Store this process' part of the terms of one step, without waiting for the device."""
        self._terms.append(terms)
        self._steps += 1

    def fetch(self, step: int) -> list[tuple[int, dict[str, float]]]:
        """Number and terms of each step since the last fetch, up to ``step``.

        One transfer from the device, after one reduction over the processes. Every process must
        have the same terms at the same step.
        """
        scalars = [value.float() for terms in self._terms for value in terms.values()]
        values = iter(self._world.sum(torch.stack(scalars)).tolist())
        fetched = [{name: next(values) for name in terms} for terms in self._terms]
        self._terms = []
        return list(enumerate(fetched, start=step - len(fetched) + 1))

    def summarize(self, steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Mean terms of ``steps``; images per second and share of data wait since the last summary.

        A term that only some steps have is averaged over those. Steps that an earlier process took
        do not count for the speed.
        """
        names = dict.fromkeys(name for terms in steps for name in terms)
        values = {name: _mean([t[name] for t in steps if name in t]) for name in names}
        now = time.monotonic()
        seconds = max(1e-9, now - self._since)
        values["images_per_s"] = round(self._steps * self._images / seconds, 2)
        values["data_wait"] = round(self._waited / seconds, 4)
        self._steps, self._waited, self._since = 0, 0.0, now
        return values

    @staticmethod
    def note(values: Mapping[str, float]) -> str:
        """The summary as text for the progress display."""
        return (
            f"loss {values['loss']:.4f}  {values['images_per_s']:.0f} images/s  "
            f"data wait {values['data_wait']:.0%}"
        )


def _mean(values: list[float]) -> float:
    return fsum(values) / len(values)
