"""What a stage is given: its part of the run, the device, and the way to the stages before it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pae_framework.build import build_source
from pae_framework.contracts import DataSource
from pae_framework.data.damaged import SkippingSource
from pae_framework.errors import UsageError
from pae_framework.plugins import Registry
from pae_framework.recipe.models import Recipe, RuntimeSettings
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.plan import PlannedStage
from pae_framework.runs.record import UpdateRecord
from pae_framework.seeding import derive_seed
from pae_framework.training.loop import TrainContext
from pae_framework.training.progress import ProgressLine
from pae_framework.training.train_settings import TrainSettings


@dataclass
class StageContext:
    """One stage at work. ``plan`` maps the names of the run's stages to what is planned."""

    recipe: Recipe
    registry: Registry
    run: RunDirectory
    planned: PlannedStage
    plan: Mapping[str, PlannedStage]
    console: Console
    update_record: UpdateRecord

    @property
    def directory(self) -> Path:
        """The stage's own folder."""
        return self.run.stage(self.planned).path

    def input(self, stage: str) -> Path | None:
        """Folder of a finished stage this one reads, or None where it reads no such stage."""
        return self.run.stage(self.plan[stage]).path if stage in self.planned.inputs else None

    def require(self, stage: str) -> Path:
        """Folder of a stage that must be there."""
        folder = self.input(stage)
        assert folder is not None, f"{self.planned.name} does not read {stage}"
        return folder

    @cached_property
    def device(self) -> torch.device:
        """The device the recipe asks for."""
        return pick_device(self.recipe.runtime)

    @property
    def machine(self) -> dict[str, Any]:
        """Where the stage works, for its record: runs may be shared and continued elsewhere."""
        on_gpu = self.device.type == "cuda"
        return {
            "host": platform.node(),
            "device": torch.cuda.get_device_name(self.device) if on_gpu else "cpu",
            "tf32": on_gpu and self.recipe.runtime.tf32,
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
        }

    @cached_property
    def train_source(self) -> DataSource:
        """Training images; damaged ones, as far as the recipe allows any, are replaced."""
        data = self.recipe.data
        source = build_source(data.train, data.image_size, self.registry)
        if not data.max_damaged:
            return source
        return SkippingSource(source, self.directory / "damaged.txt", data.max_damaged)

    @property
    def num_classes(self) -> int:
        """How many classes the training images have, as the recipe states it or as they are."""
        stated = self.recipe.data.train.config.expected()
        return len(self.train_source.class_names) if stated is None else stated[1]

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes; numbers where the images are not here and the recipe says how many
        classes they have."""
        config = self.recipe.data.train.config
        if config.expected() is not None and config.missing() is not None:
            return [str(label) for label in range(self.num_classes)]
        return self.train_source.class_names

    @cached_property
    def test_source(self) -> DataSource:
        """Test images."""
        data = self.recipe.data
        return build_source(data.test, data.image_size, self.registry)

    def seed(self, train: TrainSettings) -> int:
        """Seed of a stage that trains: its own, or the recipe's."""
        return self.recipe.seed if train.seed is None else train.seed

    def length(self, train: TrainSettings, images: int) -> int:
        """Optimiser steps of a stage that trains on ``images`` images; says them, and as epochs."""
        total = train.total_steps(images)
        epochs = total * train.batch_size / images
        self.console.print(
            f"{'':<10} {total} steps of {train.batch_size} images = {epochs:.2f} epochs",
            highlight=False,
        )
        return total

    def progress(self, total: int, done: int = 0) -> ProgressLine:
        """A progress display under the stage's name."""
        return ProgressLine(self.planned.name, total, done, self.console, self.update_record)

    def train_context(self, train: TrainSettings) -> TrainContext:
        """Where the training loop works."""
        return TrainContext(
            self.directory, self.device, self.planned.name, self.seed(train), self.progress
        )


StageFunction = Callable[[StageContext], None]


def pick_device(runtime: RuntimeSettings) -> torch.device:
    """The device of ``runtime``; also sets how many threads add up, and how products round.

    Raises:
        UsageError: it is to be a GPU, and torch finds none.
    """
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    torch.backends.cuda.matmul.allow_tf32 = runtime.tf32
    torch.backends.cudnn.allow_tf32 = runtime.tf32
    if runtime.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if runtime.device == "cuda" and not torch.cuda.is_available():
        why = "finds none here" if torch.version.cuda else "was installed without CUDA"
        raise UsageError(
            f"runtime.device asks for a GPU, and torch {torch.__version__} {why}; run it on a "
            "machine that has one, or say `runtime.device=cpu` or `auto`"
        )
    return torch.device(runtime.device)


@contextmanager
def initial_weights(seed: int, name: str) -> Iterator[None]:
    """Within, new modules draw their weights from (seed, name), whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, name, "initial weights"))
        yield
