"""The context of a stage: its recipe, device, images, and the folders of earlier stages."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch

from pae_framework.build import build_source
from pae_framework.contracts import DataSource
from pae_framework.data.damaged import SkippingSource
from pae_framework.errors import UsageError
from pae_framework.execution.probe import probe_source
from pae_framework.lifecycle import LoggedMetrics
from pae_framework.recipe.components import DataSourceComponent
from pae_framework.recipe.models import Recipe, RuntimeSettings
from pae_framework.registry import Registry
from pae_framework.runs.data_record import ImagesRecord, read_record
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.later_stages import later_stages
from pae_framework.runs.opened import OpenedRun
from pae_framework.runs.plan import PlannedStage, Split, upstream_stages
from pae_framework.runs.record import UpdateRecord
from pae_framework.runs.results import ADOPTED, StageResults
from pae_framework.seeding import seeded
from pae_framework.system.console import PlainConsole
from pae_framework.system.cores import threads_per_process
from pae_framework.training.metrics_log import tell_nobody
from pae_framework.training.progress import ProgressLine
from pae_framework.training.task import TrainContext
from pae_framework.training.train_settings import TrainSettings
from pae_framework.world import ONE_PROCESS, World


class SharedWork(Protocol):
    """Work that processes do together, as one of them sees it; a dataclass that pickles."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    registry: Registry
    console: PlainConsole
    update_record: UpdateRecord
    world: World

    @property
    def name(self) -> str:
        """What the work is called in logs."""

    @property
    def device(self) -> torch.device:
        """The device of this process."""

    def portable(self) -> Self:
        """The same, in whatever folder a process is."""


@dataclass
class StageContext:
    """One running stage. ``plan`` holds all stages of the run by name."""

    recipe: Recipe
    registry: Registry
    run: RunDirectory
    planned: PlannedStage
    plan: Mapping[str, PlannedStage]
    console: PlainConsole
    update_record: UpdateRecord
    world: World = ONE_PROCESS
    metrics_logged: Callable[[LoggedMetrics], None] = tell_nobody

    @classmethod
    def of_finished_run(cls, opened: OpenedRun, stage: str, console: PlainConsole) -> StageContext:
        """A context that reads the results of ``stage`` and of all stages it depends on.

        If the recipe asks for a GPU and there is none, uses the CPU. The record of the stage is not
        updated. For ``report``, only the stages that it reads must be finished.

        Raises:
            UsageError: the recipe has no such stage, or a stage it reads is not finished.
        """
        if stage not in opened.plan:
            opened.finished(stage)  # raises
        inputs = [name for name in upstream_stages(opened.plan, stage) if name != "report"]
        for name in inputs:
            opened.finished(name)
        recipe = _for_any_machine(opened.loaded.recipe)
        planned = replace(opened.plan[stage], inputs=tuple(inputs))
        return cls(
            recipe,
            opened.loaded.registry,
            opened.directory,
            planned,
            opened.plan,
            console,
            no_record,
        )

    @property
    def name(self) -> str:
        """That of the stage."""
        return self.planned.name

    def portable(self) -> Self:
        """The same, in whatever folder a process is."""
        return replace(self, run=self.run.absolute(), metrics_logged=tell_nobody)

    @property
    def directory(self) -> Path:
        """The stage's own folder."""
        return self.run.stage(self.planned).path

    def reads(self, stage: str) -> bool:
        """Whether this stage reads the results of another."""
        return stage in self.planned.inputs

    def results(self, stage: str) -> StageResults:
        """The results of a finished stage, each checked when it is read.

        Records them first if an earlier version finished the stage.
        """
        planned = self.plan[stage]
        if self.run.adopt_results(planned, self.recipe):
            self.console.print(f"{stage:<10} {ADOPTED}", highlight=False)
        return self.run.results(planned)

    def require(self, stage: str) -> Path:
        """Folder of a finished stage that this one must read, with everything in it checked.

        Raises:
            RunError: a file is missing or has changed since the stage wrote it.
        """
        assert self.reads(stage), f"{self.planned.name} does not read {stage}"
        return self.results(stage).files()

    def file(self, stage: str, name: str) -> Path:
        """One file of a finished stage that this one must read, checked.

        Raises:
            RunError: it is missing or has changed since the stage wrote it.
        """
        assert self.reads(stage), f"{self.planned.name} does not read {stage}"
        return self.results(stage).file(name)

    def recorded(self, key: str) -> dict[str, Any]:
        """The values of ``key`` in the records of this stage and of those that it reads, by stage.

        Stages without a value are left out.
        """
        names = (self.planned.name, *self.planned.inputs)
        records = {name: self.run.stage(self.plan[name]).info for name in names}
        return {name: info[key] for name, info in records.items() if key in info}

    @cached_property
    def device(self) -> torch.device:
        """The device the recipe asks for.

        Raises:
            UsageError: the recipe asks for a GPU, but torch finds none.
        """
        return pick_device(self.recipe.runtime, self.world.local_rank)

    @property
    def machine(self) -> dict[str, Any]:
        """The machine the stage runs on, for its record; a run can resume on another machine."""
        on_gpu = self.device.type == "cuda"
        return {
            "host": platform.node(),
            "device": torch.cuda.get_device_name(self.device) if on_gpu else "cpu",
            "tf32": on_gpu and self.recipe.runtime.tf32,
            "threads": torch.get_num_threads(),
            **({"processes": self.world.size} if self.world.size > 1 else {}),
            "torch": str(torch.__version__),
        }

    @cached_property
    def train_source(self) -> DataSource:
        """Training images. Up to ``data.max_damaged`` unreadable images are replaced by others."""
        return self.train_source_at(self.recipe.data.image_size)

    def train_source_at(self, image_size: int) -> DataSource:
        """The training images with another side in px."""
        data = self.recipe.data
        source = self._source(data.train, image_size)
        if not data.max_damaged:
            return source
        record = self.directory / "damaged.txt"
        return SkippingSource(source, record, data.max_damaged, self.world.rank)

    def recorded_images(self, split: Split) -> ImagesRecord | None:
        """What the first stage of the run that read these images recorded; None if none did."""
        return read_record((self.run.stage(stage).path for stage in self.plan.values()), split)

    @property
    def num_classes(self) -> int:
        """Number of classes of the training images: as recorded, else as in the recipe."""
        stated = self.recipe.data.train.config.expected()
        recorded = self.recorded_images("train")
        if recorded is None and stated is not None:
            return stated[1]
        return len(self.class_names)

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, as the first stage of the run recorded them.

        If no stage did, and the images are not on this machine but the recipe states the number of
        classes, the names are numbers.
        """
        if (recorded := self.recorded_images("train")) is not None:
            return recorded.class_names
        config = self.recipe.data.train.config
        stated = config.expected()
        if stated is not None and config.missing() is not None:
            return [str(label) for label in range(stated[1])]
        return self.train_source.class_names

    @cached_property
    def test_source(self) -> DataSource:
        """Test images."""
        return self._source(self.recipe.data.test, self.recipe.data.image_size)

    def _source(self, component: DataSourceComponent, image_size: int) -> DataSource:
        """A data source; if it shuffles at random, the order is the same in each process."""
        with initial_weights(0, "data"):
            source = build_source(component, image_size, self.registry)
        probe_source(source, component, self.registry)
        return source

    def seed(self, train: TrainSettings) -> int:
        """The stage's own training seed, or the recipe's."""
        return self.recipe.seed if train.seed is None else train.seed

    def print_length(self, train: TrainSettings, images: int) -> int:
        """Print the steps and epochs of a training on ``images`` images; returns the steps."""
        total = train.total_steps(images)
        epochs = total * train.batch_size / images
        self.console.print(
            f"{'':<10} {total} steps of {train.batch_size} images = {epochs:.2f} epochs"
        )
        return total

    def progress(self, total: int, done: int = 0) -> ProgressLine:
        """A progress display with the stage's name."""
        return ProgressLine(
            self.planned.name, total, done, self.console, self.update_record, self._later()
        )

    def _later(self) -> Callable[[float], float | None] | None:
        """How long the run takes after this stage; None unless this is the running stage."""
        if self.update_record is no_record or not self.world.is_main:
            return None
        recorded = self.recorded_images("train")
        images = None if recorded is None else recorded.images
        return later_stages(self.recipe, self.run, self.plan, self.planned.name, images).seconds

    def train_context(self, train: TrainSettings, images: int) -> TrainContext:
        """Folder, device, name, seed and display for a training on ``images`` images."""
        return TrainContext(
            self.directory,
            self.device,
            self.planned.name,
            self.seed(train),
            self.progress,
            self.world,
            self.update_record,
            self.metrics_logged,
            images,
        )


def configure_torch(runtime: RuntimeSettings, processes: int = 1) -> None:
    """Set torch's number of threads and its use of TF32 for the whole process.

    Several processes of a machine share its cores, unless ``runtime.threads`` or OMP_NUM_THREADS
    says otherwise.
    """
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    elif processes > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads_per_process(processes))
    torch.backends.cuda.matmul.allow_tf32 = runtime.tf32
    torch.backends.cudnn.allow_tf32 = runtime.tf32


def pick_device(runtime: RuntimeSettings, local_rank: int = 0) -> torch.device:
    """The device that ``runtime.device`` names; ``auto`` is a GPU if there is one, else the CPU.

    Each process of a machine takes another of the GPUs it sees. With Slurm's
    ``--gpus-per-task=1`` it sees only its own.

    Raises:
        UsageError: it is ``cuda``, but torch finds no GPU.
    """
    if runtime.device == "auto":
        runtime = runtime.model_copy(
            update={"device": "cuda" if torch.cuda.is_available() else "cpu"}
        )
    if runtime.device == "cuda" and not torch.cuda.is_available():
        why = "finds no GPU" if torch.version.cuda else "was installed without CUDA"
        raise UsageError(
            f"runtime.device is cuda, but torch {torch.__version__} {why}; set runtime.device=cpu "
            "or runtime.device=auto"
        )
    if runtime.device == "cuda" and local_rank:
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return torch.device(runtime.device)


@contextmanager
def initial_weights(seed: int, name: str) -> Iterator[None]:
    """Seed the initial weights of modules built inside the block, by (seed, name)."""
    with seeded(seed, name, "initial weights"):
        yield


def _for_any_machine(recipe: Recipe) -> Recipe:
    """The recipe with ``runtime.device`` auto instead of cuda."""
    if recipe.runtime.device != "cuda":
        return recipe
    runtime = recipe.runtime.model_copy(update={"device": "auto"})
    return recipe.model_copy(update={"runtime": runtime})


def no_record(**values: Any) -> None:
    """In place of ``update_record``: leaves the stage's record unchanged."""
