"""The sample sets of a stage: their chunks, sampled in any order and process, and their list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.flow.sampling import EvaluationCount
from pae_framework.sampling.sample_set import (
    SETS,
    are_complete,
    counted_evaluations,
    join_chunks,
    remove_chunks,
    write_chunk,
)
from pae_framework.sampling.sampler import Sampler
from pae_framework.system.files import write_json


@dataclass(frozen=True, eq=False)
class PlannedSet:
    """A set to sample: its npz, its labels (M,) and its chunks of sample numbers, the weights to
    sample from, the settings, and its entry in ``sets.json``, which includes the identity."""

    path: Path
    labels: Tensor
    chunks: Sequence[range]
    weights: Path
    settings: SampleSettings
    entry: dict[str, Any]

    def add_evaluations(self, sampler: Sampler) -> bool:
        """Complete the protocol by the evaluations kept with the chunks; False if they are unknown.

        Only those of adaptive solvers are counted.
        """
        if not self.settings.adaptive:
            return True
        counted = counted_evaluations(self.path, self.chunks)
        if counted is None:
            return False
        self.entry["protocol"] |= replace(sampler, count=counted).describe(self.settings)
        return True


@dataclass(frozen=True)
class SampleSets:
    """The sets of a stage; ``missing`` are those that are not there yet, in order."""

    directory: Path
    all: list[PlannedSet]
    missing: list[PlannedSet]

    def join_complete(self, sampler: Sampler) -> None:
        """Join the chunks of the first missing sets, as far as these are complete."""
        while self.missing and are_complete(self.missing[0].path, self.missing[0].chunks):
            planned = self.missing[0]
            planned.add_evaluations(sampler)
            join_chunks(planned.path, planned.chunks, planned.labels)
            del self.missing[0]
            self.write_list()

    def write_list(self) -> None:
        """List the sets that are there, then remove their chunks."""
        there = [planned for planned in self.all if planned not in self.missing]
        write_json(self.directory / SETS, [planned.entry for planned in there])
        for planned in there:
            remove_chunks(planned.path)


class ChunkSampler:
    """Samples chunks; loads the weights of a set when they are needed.

    Args:
        sampler: of the run.
        chunks: each with its set.
        show: called with the number of images of the chunk that are done.
    """

    def __init__(
        self,
        sampler: Sampler,
        chunks: Sequence[tuple[PlannedSet, range]],
        show: Callable[[int], None],
    ):
        self._sampler, self._chunks, self._show = sampler, chunks, show
        self._loaded: Path | None = None

    def __call__(self, number: int) -> None:
        """Sample one chunk unless it is complete."""
        planned, chunk = self._chunks[number]
        count = EvaluationCount()
        images = replace(self._sampler, count=count).for_set(planned.labels, planned.settings)

        def sample(indices: Tensor) -> Tensor:
            self._load(planned.weights)
            return images(indices)

        counted = count if planned.settings.adaptive else None
        batch_size = planned.settings.batch_size
        for done in write_chunk(planned.path, chunk, sample, batch_size, counted):
            self._show(done - chunk.start)

    def _load(self, weights: Path) -> None:
        if self._loaded != weights:
            self._sampler.load(weights)
            self._loaded = weights
