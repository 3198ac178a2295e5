"""What a stage gives to the training loop: the task and its context."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pae_framework.contracts import Batch
from pae_framework.lifecycle import LoggedMetrics
from pae_framework.training.metrics_log import tell_nobody
from pae_framework.training.progress import ProgressLine
from pae_framework.training.train_settings import OptimizerSettings
from pae_framework.world import ONE_PROCESS, World


@dataclass(frozen=True)
class TrainTask:
    """A network, its loss and its batches; optionally a discriminator.

    The discriminator is a task of its own. It takes its step after each step of the first network,
    on the same batch, so it has no ``batches``. It is in train mode during its own step and in
    eval mode otherwise. Gradients that the first network's backward pass leaves in it are dropped.
    Its module must not contain the first network as a sub-module, and the names of its loss terms
    must differ from those of the first network.

    Args:
        module: ``module(batch, generator)`` returns the loss terms of one micro-batch, ``loss``
            among them, and takes its randomness from the generator. It holds the trained weights.
        batches: ``batches(start, stop)`` yields this process' part of the batch of each step in
            [start, stop): its rows of each micro-batch (``World.rows``), one after the other.
        saved: the sub-module whose weights are averaged and saved, under its own names; None: the
            whole module. Checkpoints hold the whole module.
        optimizer: settings of the optimizer and its schedule; None: those of the training.
        first_step: earlier steps do not train this network; its schedule starts here.
        discriminator: the second network's task.
        begin_step: called with the index of each step before it, for schedules inside the module.
            What it sets must depend on the index alone.
        check: called once, after ``lr_factors`` froze weights and before any training; may raise.
        signed: loss terms that may be negative, or whose weight is adaptive or changes. Their size
            does not indicate divergence, so ``jump`` measures the loss without them.
    """

    module: nn.Module
    batches: Callable[[int, int], Iterable[Batch]] | None = None
    saved: nn.Module | None = None
    optimizer: OptimizerSettings | None = None
    first_step: int = 0
    discriminator: TrainTask | None = None
    begin_step: Callable[[int], None] | None = None
    check: Callable[[], None] | None = None
    signed: tuple[str, ...] = ()


def _unrecorded(**values: object) -> None:
    """In place of ``update_record``: there is no record."""


@dataclass(frozen=True)
class TrainContext:
    """Where a training runs: its folder, device, name (part of its seeds), display and processes.

    ``progress(total, done)`` makes the progress display; ``update_record(key=value)`` keeps a value
    in the record of the training; ``metrics_logged`` is told each line of its log; ``images`` is
    the size of the data set, for a schedule in epochs.
    """

    directory: Path
    device: torch.device
    name: str
    seed: int
    progress: Callable[[int, int], ProgressLine]
    world: World = ONE_PROCESS
    update_record: Callable[..., None] = _unrecorded
    metrics_logged: Callable[[LoggedMetrics], None] = tell_nobody
    images: int = 1
