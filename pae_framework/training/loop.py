"""The one training loop: every stage that trains goes through here.

Its only state is the count of steps done, with weights, average and optimiser. The data of a step
and its randomness are functions of (seed, step), so a training that was killed and goes on from a
checkpoint ends with the bits it would have had (the idea of EDM2's training loop).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pae_framework.contracts import LossTerms
from pae_framework.errors import RunError
from pae_framework.seeding import generator
from pae_framework.settings import TrainSettings
from pae_framework.training.checkpoint import Checkpoints, TrainingState, save_tensors
from pae_framework.training.ema import EMA
from pae_framework.training.metrics_log import MetricsLog
from pae_framework.training.optimizer import build_optimizer, learning_rate
from pae_framework.training.progress import ProgressLine
from pae_framework.training.stopping import StopRequest

Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Trainee:
    """What a stage trains.

    ``module`` holds the weights that are trained and kept; ``loss`` gives the terms of one
    micro-batch, its randomness from the generator; ``batches(start, stop)`` yields the batch of
    each step in [start, stop), a tuple of tensors with one row per image.
    """

    module: nn.Module
    loss: Callable[[Batch, torch.Generator], LossTerms]
    batches: Callable[[int, int], Iterable[Batch]]


@dataclass(frozen=True)
class Workplace:
    """Where a training works: its folder, device, name (part of its randomness) and display."""

    directory: Path
    device: torch.device
    name: str
    seed: int
    progress: Callable[[int, int], ProgressLine]


def train(trainee: Trainee, settings: TrainSettings, total: int, place: Workplace) -> None:
    """Train for ``total`` optimiser steps, going on from the newest checkpoint if there is one.

    Leaves ``weights.safetensors`` (the average where one is kept, else the weights, with buffers)
    in the folder, and ``weights-stepNNNNNN.safetensors`` for ``settings.keep_steps``; the module
    ends with those weights.

    Raises:
        RunError: a term of the loss is not finite (says which, at which step, and the last good
            checkpoint), or the training was asked to stop.
    """
    module = trainee.module.train().to(place.device)
    optimizer = build_optimizer(module, settings)
    ema = EMA(module, settings.ema) if settings.ema else None
    state = TrainingState(module, optimizer, ema)
    checkpoints = Checkpoints(place.directory / "checkpoints")
    first = checkpoints.restore(state)
    log = MetricsLog(place.directory, first)
    meter = Meter(settings.batch_size)
    try:
        with place.progress(total, first) as progress, StopRequest() as stop:
            batches = meter.timed(trainee.batches(first, total))
            for step, batch in enumerate(batches, start=first):
                lr = learning_rate(step, total, settings)
                terms = _step(trainee, settings, state, batch, step, lr, place)
                meter.add(terms)
                done = step + 1
                saving = done % settings.checkpoint_every == 0 or done == total or stop.asked
                if done % settings.log_every == 0 or saving:
                    values = meter.read(done, checkpoints.directory)
                    log.write(done, {**values, "lr": lr})
                    progress.update(done, meter.note(values))
                if done in settings.keep_steps:
                    path = place.directory / f"weights-step{done:06d}.safetensors"
                    save_tensors(averaged(module, ema), path)
                if saving:
                    checkpoints.save(done, state)
                if stop.asked and done < total:
                    raise RunError(f"stopped at step {done} of {total}; run it again to go on")
    finally:
        log.close()
    final = averaged(module, ema)
    save_tensors(final, place.directory / "weights.safetensors")
    module.load_state_dict(final)
    module.eval()


def averaged(module: nn.Module, ema: EMA | None) -> dict[str, Tensor]:
    """State dict of the module with its averages in place of its weights."""
    state = {name: value.detach().clone() for name, value in module.state_dict().items()}
    return state | (ema.state_dict() if ema else {})


def _step(
    trainee: Trainee,
    settings: TrainSettings,
    state: TrainingState,
    batch: Batch,
    step: int,
    lr: float,
    place: Workplace,
) -> LossTerms:
    """One optimiser step; returns the batch's mean terms, on the device."""
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    rows = len(batch[0])
    parts = zip(*(tensor.chunk(settings.accumulate) for tensor in batch), strict=True)
    totals: LossTerms = {}
    for index, part in enumerate(parts):
        part = tuple(tensor.to(place.device, non_blocking=True) for tensor in part)
        randomness = generator(place.seed, place.name, step, index)  # on the CPU: same everywhere
        share = len(part[0]) / rows
        with torch.autocast(
            place.device.type, torch.bfloat16, enabled=settings.precision == "bf16"
        ):
            terms = trainee.loss(part, randomness)
        (terms["loss"] * share).backward()
        for name, value in terms.items():
            totals[name] = totals.get(name, 0.0) + value.detach() * share
    if settings.clip:
        weights = [p for group in state.optimizer.param_groups for p in group["params"]]
        totals["grad_norm"] = nn.utils.clip_grad_norm_(weights, settings.clip).detach()
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.ema:
        state.ema.update()
    return totals


class Meter:
    """Means of loss terms and rates since the last reading; reads from the device in batches."""

    def __init__(self, images_per_step: int):
        self._images = images_per_step
        self._terms: list[LossTerms] = []
        self._waited = 0.0
        self._since = time.monotonic()

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches, with the time waited for them counted."""
        iterator = iter(batches)
        while True:
            start = time.monotonic()
            batch = next(iterator, None)
            self._waited += time.monotonic() - start
            if batch is None:
                return
            yield batch

    def add(self, terms: LossTerms) -> None:
        """Keep the terms of one step (no synchronisation)."""
        self._terms.append(terms)

    def read(self, step: int, checkpoints: Path) -> dict[str, float]:
        """Means since the last reading, images per second and the share of time waited for data.

        Raises:
            RunError: a term is not finite.
        """
        names = list(self._terms[0])
        stacked = torch.stack(
            [torch.stack([t[name].float() for name in names]) for t in self._terms]
        )
        values = dict(zip(names, stacked.mean(0).tolist(), strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                raise RunError(
                    f"the term {name!r} is {value} within the {len(self._terms)} steps up to step "
                    f"{step}; the last good checkpoint is in {checkpoints}"
                )
        now = time.monotonic()
        seconds = max(1e-9, now - self._since)
        values["images_per_s"] = round(len(self._terms) * self._images / seconds, 2)
        values["data_wait"] = round(self._waited / seconds, 4)
        self._terms, self._waited, self._since = [], 0.0, now
        return values

    @staticmethod
    def note(values: dict[str, float]) -> str:
        """The reading as a line for the progress display."""
        return (
            f"loss {values['loss']:.4f}  {values['images_per_s']:.0f} images/s  "
            f"data wait {values['data_wait']:.0%}"
        )
