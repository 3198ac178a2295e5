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

from pae_framework.contracts import Batch, LossTerms
from pae_framework.errors import RunError, StoppedError, UsageError
from pae_framework.seeding import generator
from pae_framework.settings import TrainSettings
from pae_framework.tensor_files import save_tensors
from pae_framework.training.checkpoint import Checkpoints, TrainingState
from pae_framework.training.ema import EMA
from pae_framework.training.metrics_log import MetricsLog
from pae_framework.training.optimizer import build_optimizer, learning_rate
from pae_framework.training.progress import ProgressLine
from pae_framework.training.stopping import StopRequest


@dataclass(frozen=True)
class Trainee:
    """What a stage trains.

    ``module(batch, generator)`` gives the terms of one micro-batch, its randomness from the
    generator, and holds the weights that are trained; ``batches(start, stop)`` yields the batch of
    each step in [start, stop); ``kept`` is the part of the module whose weights are averaged and
    left behind, under its own names; None: all of it. Checkpoints hold the whole module.
    """

    module: nn.Module
    batches: Callable[[int, int], Iterable[Batch]]
    kept: nn.Module | None = None


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
    of what is kept in the folder, and ``weights-stepNNNNNN.safetensors`` for
    ``settings.keep_steps``; what is kept ends with those weights.

    Raises:
        UsageError: a step to keep is not one of the training's; nothing was done.
        RunError: a term of the loss or the gradient's norm is not finite (says which, at which
            step, and the last good checkpoint).
        StoppedError: the training was asked to stop; there is a checkpoint of its last step.
    """
    _check_keep_steps(settings, total)
    module = trainee.module.train().to(place.device)
    kept = module if trainee.kept is None else trainee.kept
    optimizer = build_optimizer(module, settings)
    ema = EMA(kept, settings.ema) if settings.ema else None
    state = TrainingState(module, optimizer, ema)
    checkpoints = Checkpoints(place.directory / "checkpoints")
    first = done = checkpoints.restore(state)
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
                stopping = stop.asked  # once: what is decided below must agree
                saving = stopping or done % settings.checkpoint_every == 0 or done == total
                if done % settings.log_every == 0 or saving:
                    values = meter.read(done, checkpoints.directory)
                    log.write(done, {**values, "lr": lr})
                    progress.update(done, meter.note(values))
                if done in settings.keep_steps:
                    path = place.directory / f"weights-step{done:06d}.safetensors"
                    save_tensors(averaged(kept, ema), path)
                if saving:
                    checkpoints.save(done, state)
                if stopping:
                    break
            if stop.asked:
                raise StoppedError(f"stopped at step {done} of {total}; run it again to go on")
    finally:
        log.close()
    final = averaged(kept, ema)
    save_tensors(final, place.directory / "weights.safetensors")
    kept.load_state_dict(final)
    module.eval()


def _check_keep_steps(settings: TrainSettings, total: int) -> None:
    if wrong := [step for step in settings.keep_steps if step > total]:
        raise UsageError(
            f"keep_steps: there is no step {wrong[0]} to keep; this training has steps 1 to {total}"
        )


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
            terms = trainee.module(part, randomness)
        (terms["loss"] * share).backward()
        for name, value in terms.items():
            totals[name] = totals.get(name, 0.0) + value.detach() * share
    # Measured without clipping, too: the meter refuses a gradient that is not finite.
    weights = [p for group in state.optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(weights, settings.clip or math.inf)
    totals["grad_norm"] = norm.detach()
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

        A term that only some steps had is averaged over those.

        Raises:
            RunError: a term is not finite.
        """
        names = list(dict.fromkeys(name for terms in self._terms for name in terms))
        means = torch.stack([self._mean(name) for name in names])
        values = dict(zip(names, means.tolist(), strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                raise RunError(
                    f"the term {name!r} is {value} within the {len(self._terms)} steps up to step "
                    f"{step}; the last good checkpoint is in {checkpoints}. Training is "
                    "deterministic: going on from there ends here again unless a setting is "
                    "changed (a lower `lr`, a smaller `clip`, `precision: float32`)"
                )
        now = time.monotonic()
        seconds = max(1e-9, now - self._since)
        values["images_per_s"] = round(len(self._terms) * self._images / seconds, 2)
        values["data_wait"] = round(self._waited / seconds, 4)
        self._terms, self._waited, self._since = [], 0.0, now
        return values

    def _mean(self, name: str) -> Tensor:
        return torch.stack([t[name].float() for t in self._terms if name in t]).mean()

    @staticmethod
    def note(values: dict[str, float]) -> str:
        """The reading as a line for the progress display."""
        return (
            f"loss {values['loss']:.4f}  {values['images_per_s']:.0f} images/s  "
            f"data wait {values['data_wait']:.0%}"
        )
