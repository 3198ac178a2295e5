"""Parts of sample sets, drawn by several processes of this machine."""

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
from pae_framework.sampling.sample_set import begin_parts, draw_part
from pae_framework.sampling.sampler import Sampler


@dataclass(frozen=True)
class PlannedSet:
    """A set to draw: its npz, what tells it from others, weights to draw from, and how."""

    path: Path
    identity: str
    weights: Path
    settings: SampleSettings


Part = tuple[PlannedSet, range]
"""Some sample numbers of a set."""


def draw_parts(context: StageContext, settings: SampleSettings, sets: Sequence[PlannedSet]) -> None:
    """Draw all parts of the sets that are not there, ``settings.processes`` at once.

    They lie where ``data.image_sets.draw_set``, called afterwards, finds them and joins them.

    Raises:
        StoppedError: it was asked to stop; the parts under way are written.
        RunError: a process failed; parts that are there stay.
    """
    parts = [
        (one, part) for one in sets for part in begin_parts(one.path, settings.count, one.identity)
    ]
    with context.progress(len(sets) * settings.count) as progress:

        def show(done: int) -> None:
            progress.update(done * len(sets) * settings.count // len(parts))

        worker = partial(PartDrawer, parts)
        done = do_items(context, worker, len(parts), settings.processes, show)
    if done < len(parts):
        raise StoppedError(f"stopped with {done} of {len(parts)} parts; run it again to go on")


class PartDrawer:
    """Draws parts with one sampler, which takes other weights where a part is of another set."""

    def __init__(self, parts: Sequence[Part], context: StageContext):
        settings = context.recipe.sample
        assert settings is not None
        self.parts, self.sampler = parts, Sampler.of(context)
        classes = self.sampler.model.num_classes
        self.labels = label_plan(settings.count, classes, settings.seed, settings.labels)
        self.loaded: Path | None = None

    def __call__(self, number: int) -> None:
        """Draw one part, unless it is there whole."""
        planned, part = self.parts[number]
        if self.loaded != planned.weights:
            self.sampler.load(planned.weights)
            self.loaded = planned.weights

        def draw(indices: Tensor) -> Tensor:
            return self.sampler.images(self.labels[indices], indices, planned.settings)

        for _ in draw_part(planned.path, part, draw, planned.settings.batch_size):
            pass
