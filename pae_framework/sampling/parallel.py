"""Sample the chunks of sample sets with several processes of this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pae_framework.errors import StoppedError
from pae_framework.execution.context import StageContext
from pae_framework.execution.processes import do_items
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.flow.sampling import label_plan
from pae_framework.sampling.sample_set import prepare_chunks, write_chunk
from pae_framework.sampling.sampler import Sampler


@dataclass(frozen=True, eq=False)
class PlannedSet:
    """A set to sample: its npz, the weights to sample from, the settings, and its entry in
    ``sets.json``, which includes the identity."""

    path: Path
    weights: Path
    settings: SampleSettings
    entry: dict[str, Any]


def sample_chunks(
    context: StageContext,
    settings: SampleSettings,
    sets: Sequence[PlannedSet],
    make_sampler: Callable[[StageContext], Sampler],
    chunk_size: int,
) -> None:
    """Sample all missing chunks of the sets with ``settings.processes`` processes.

    :func:`~pae_framework.sampling.sample_set.write_set` then joins them.

    Raises:
        StoppedError: a signal asked to stop; chunks in progress were finished.
        RunError: a process failed; finished chunks are kept.
    """
    chunks = [
        (planned, chunk)
        for planned in sets
        for chunk in prepare_chunks(
            planned.path, settings.count, planned.entry["identity"], chunk_size
        )
    ]
    with context.progress(len(sets) * settings.count) as progress:

        def show(done: int) -> None:
            progress.update(done * len(sets) * settings.count // len(chunks))

        worker = partial(ChunkSampler, chunks, make_sampler)
        done = do_items(context, worker, len(chunks), settings.processes, show)
    if done < len(chunks):
        raise StoppedError(
            f"stopped with {done} of {len(chunks)} chunks; run the same command to resume"
        )


class ChunkSampler:
    """Samples chunks (a set and some of its sample numbers); loads the weights of each set."""

    def __init__(
        self,
        chunks: Sequence[tuple[PlannedSet, range]],
        make_sampler: Callable[[StageContext], Sampler],
        context: StageContext,
    ):
        settings = context.recipe.sample
        assert settings is not None
        self.chunks, self.sampler = chunks, make_sampler(context)
        classes = self.sampler.model.num_classes
        self.labels = label_plan(settings.count, classes, settings.seed, settings.labels)
        self.loaded: Path | None = None

    def __call__(self, number: int) -> None:
        """Sample one chunk unless it is complete."""
        planned, chunk = self.chunks[number]
        if self.loaded != planned.weights:
            self.sampler.load(planned.weights)
            self.loaded = planned.weights
        sample = self.sampler.for_set(self.labels, planned.settings)
        for _ in write_chunk(planned.path, chunk, sample, planned.settings.batch_size):
            pass
