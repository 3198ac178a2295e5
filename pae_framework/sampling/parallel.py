"""Chunks of sample sets, sampled by several processes of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from pae_framework.errors import StoppedError
from pae_framework.execution.context import StageContext
from pae_framework.execution.processes import do_items
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.flow.sampling import label_plan
from pae_framework.sampling.sample_set import CHUNK, prepare_chunks, write_chunk
from pae_framework.sampling.sampler import Sampler


@dataclass(frozen=True)
class PlannedSet:
    """A set to sample: its npz, its identity, the weights to sample from, and the settings."""

    path: Path
    identity: str
    weights: Path
    settings: SampleSettings


Chunk = tuple[PlannedSet, range]
"""Some sample numbers of a set."""


def sample_chunks(
    context: StageContext,
    settings: SampleSettings,
    sets: Sequence[PlannedSet],
    chunk_size: int = CHUNK,
) -> None:
    """Sample all missing chunks of the sets with ``settings.processes`` processes.

    :func:`~pae_framework.sampling.sample_set.write_set`, called afterwards, finds and joins them.

    Raises:
        StoppedError: a signal asked to stop; chunks that had been started are finished.
        RunError: a process failed; finished chunks stay.
    """
    chunks = [
        (planned, chunk)
        for planned in sets
        for chunk in prepare_chunks(planned.path, settings.count, planned.identity, chunk_size)
    ]
    with context.progress(len(sets) * settings.count) as progress:

        def show(done: int) -> None:
            progress.update(done * len(sets) * settings.count // len(chunks))

        worker = partial(ChunkSampler, chunks)
        done = do_items(context, worker, len(chunks), settings.processes, show)
    if done < len(chunks):
        raise StoppedError(f"stopped with {done} of {len(chunks)} chunks; run it again to resume")


class ChunkSampler:
    """Samples chunks with one sampler, whose weights change with the set."""

    def __init__(self, chunks: Sequence[Chunk], context: StageContext):
        settings = context.recipe.sample
        assert settings is not None
        self.chunks, self.sampler = chunks, Sampler.of(context)
        classes = self.sampler.model.num_classes
        self.labels = label_plan(settings.count, classes, settings.seed, settings.labels)
        self.loaded: Path | None = None

    def __call__(self, number: int) -> None:
        """Sample one chunk unless it is complete."""
        planned, chunk = self.chunks[number]
        if self.loaded != planned.weights:
            self.sampler.load(planned.weights)
            self.loaded = planned.weights

        def sample(indices: Tensor) -> Tensor:
            return self.sampler.images(self.labels[indices], indices, planned.settings)

        for _ in write_chunk(planned.path, chunk, sample, planned.settings.batch_size):
            pass
