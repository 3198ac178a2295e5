"""What a stage hands to the training loop, and where the loop works."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pae_framework.contracts import Batch
from pae_framework.training.progress import ProgressLine
from pae_framework.training.train_settings import OptimizerSettings


@dataclass(frozen=True)
class Opponent:
    """A second network trained against the first, with an optimiser of its own.

    It takes its step after each step of the first, on the same batch. ``module(batch, generator)``
    gives its terms, under names that the task's terms do not have; its sub-modules hold its own
    weights only, so that the task is reached from outside the module tree. It is in train mode
    for its own step and in eval mode else; a task that wants to ask it in another mode sets that
    itself, for the time it asks. Gradients that the task's backward pass leaves in it are
    dropped. Steps before ``first_step`` do not train it, and its learning rates count its own
    steps.
    """

    module: nn.Module
    settings: OptimizerSettings
    first_step: int = 0


@dataclass(frozen=True)
class TrainTask:
    """What a stage trains.

    ``module(batch, generator)`` gives the terms of one micro-batch, its randomness from the
    generator, and holds the weights that are trained; ``batches(start, stop)`` yields the batch of
    each step in [start, stop); ``kept`` is the part of the module whose weights are averaged and
    left behind, under its own names; None: all of it. Checkpoints hold the whole module.
    ``begin_step`` is told the index of each step before it, for schedules inside the module: what
    it sets must be a function of the index alone. ``check`` is called once, when the parts that
    ``lr_factors`` freeze are frozen and nothing is trained yet; it may refuse. ``signed`` names
    terms of the loss that may be negative, or weighted by what they are: where they are small or
    large nothing has gone wrong, so ``jump`` watches the loss without them.
    """

    module: nn.Module
    batches: Callable[[int, int], Iterable[Batch]]
    kept: nn.Module | None = None
    opponent: Opponent | None = None
    begin_step: Callable[[int], None] | None = None
    check: Callable[[], None] | None = None
    signed: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainContext:
    """Where a training works: its folder, device, name (part of its randomness) and display."""

    directory: Path
    device: torch.device
    name: str
    seed: int
    progress: Callable[[int, int], ProgressLine]
