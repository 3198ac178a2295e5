"""The one training loop: every stage that trains goes through here.

Its only state is the count of steps done, with weights, averages, optimisers and the last losses.
The data of a step and its randomness are functions of (seed, step), so a training that was killed
and goes on from a checkpoint ends with the bits it would have had (the idea of EDM2's training
loop).
"""

from __future__ import annotations

from torch import Tensor, nn

from pae_framework.errors import StoppedError, UsageError
from pae_framework.tensor_files import save_tensors
from pae_framework.training.checkpoint import Checkpoints
from pae_framework.training.divergence import DivergenceGuard
from pae_framework.training.ema import EMA
from pae_framework.training.meter import Meter
from pae_framework.training.metrics_log import MetricsLog
from pae_framework.training.steps import Steps
from pae_framework.training.stopping import StopRequest
from pae_framework.training.task import Opponent, TrainContext, TrainTask
from pae_framework.training.train_settings import TrainSettings

__all__ = ["Opponent", "TrainContext", "TrainTask", "averaged", "train"]


def train(task: TrainTask, settings: TrainSettings, total: int, place: TrainContext) -> None:
    """Train for ``total`` optimiser steps, going on from the newest checkpoint if there is one.

    Leaves ``weights.safetensors`` (the average where one is kept, else the weights, with buffers)
    of what is kept in the folder, and ``weights-stepNNNNNN.safetensors`` for
    ``settings.keep_steps``; what is kept ends with those weights. Parts whose learning rate has the
    factor 0 stay frozen.

    Raises:
        UsageError: a step to keep is not one of the training's, a part in ``lr_factors`` not one of
            the model's, or the task's check refuses; nothing was done.
        RunError: a term of a loss, a gradient's norm or a weight is not finite, or the loss jumps
            (says which, at which step, and the last good checkpoint).
        StoppedError: the training was asked to stop; there is a checkpoint of its last step.
    """
    _check_keep_steps(settings, total)
    steps = Steps(task, settings, total, place)
    checkpoints = Checkpoints(place.directory / "checkpoints")
    first = done = checkpoints.restore(steps.state)
    watch = DivergenceGuard(steps.state, settings.jump, checkpoints, task.signed)
    meter = Meter(settings.batch_size, watch.look)
    log = MetricsLog(place.directory, first)
    try:
        with place.progress(total, first) as progress, StopRequest() as stop:
            batches = meter.timed(task.batches(first, total))
            for step, batch in enumerate(batches, start=first):
                meter.add(steps.take(step, batch))
                done = step + 1
                stopping = stop.asked  # once: what is decided below must agree
                saving = stopping or done % settings.checkpoint_every == 0 or done == total
                keeping = done in settings.keep_steps
                if done % settings.log_every == 0 or saving or keeping:
                    values = meter.read(done)
                    log.write(done, values | steps.learning_rates(step))
                    progress.update(done, meter.note(values))
                if saving or keeping:
                    watch.look_at_weights(done)
                if keeping:
                    _leave(steps, place, f"weights-step{done:06d}")
                if saving:
                    checkpoints.save(done, steps.state)
                if stopping:
                    break
            if stop.asked:
                raise StoppedError(f"stopped at step {done} of {total}; run it again to go on")
    finally:
        log.close()
    steps.kept.load_state_dict(_leave(steps, place, "weights"))
    task.module.eval()


def _leave(steps: Steps, place: TrainContext, name: str) -> dict[str, Tensor]:
    """Write what is kept, with its averages, into the folder; returns it."""
    tensors = averaged(steps.kept, steps.ema)
    save_tensors(tensors, place.directory / f"{name}.safetensors")
    return tensors


def _check_keep_steps(settings: TrainSettings, total: int) -> None:
    if wrong := [step for step in settings.keep_steps if step > total]:
        raise UsageError(
            f"keep_steps: there is no step {wrong[0]} to keep; this training has steps 1 to {total}"
        )


def averaged(module: nn.Module, ema: EMA | None) -> dict[str, Tensor]:
    """State dict of the module with its averages in place of its weights."""
    state = {name: value.detach().clone() for name, value in module.state_dict().items()}
    return state | (ema.state_dict() if ema else {})
