"""Checkpoints: how long the training waits for one that is written beside it, or at once."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.timing import Timing, Way, in_turn
from pae_framework.training.checkpoint import Checkpoints, NetworkState, TrainingState
from pae_framework.training.ema import EMA
from pae_framework.training.metrics_log import MetricsLog
from pae_framework.training.saving import CheckpointSaver
from pae_framework.world import ONE_PROCESS

WIDTH = 1024


def saving(device: torch.device, rounds: int, size: int = 1 << 30) -> list[Timing]:
    """Seconds for which a training waits that saves ``size`` bytes, and until they are published.

    The memory of the copy is allocated in the first round, which is not counted.
    """
    state = _trained(device, size)
    with tempfile.TemporaryDirectory() as name:
        folder, steps = Path(name), itertools.count(1)
        at_once = Checkpoints(folder / "at once")
        log = MetricsLog(folder, 0)
        saver = CheckpointSaver(
            Checkpoints(folder / "beside"), state, device, ONE_PROCESS, log, lambda **values: None
        )

        def beside() -> None:
            saver.save(next(steps))

        def published() -> None:
            saver.save(next(steps))
            saver.finish()

        found = in_turn(
            {
                "written at once": _timed(saver, lambda: at_once.save(next(steps), state)),
                "copied, written beside the training": _timed(saver, beside),
                "the same, until it is published": _timed(saver, published),
            },
            rounds,
        )
        saver.finish()
        log.close()
    return found


def _timed(saver: CheckpointSaver, save: Callable[[], None]) -> Way:
    """A way that saves, after the save before has ended."""

    def way() -> float:
        saver.finish()
        start = time.perf_counter()
        save()
        return time.perf_counter() - start

    return way


def _trained(device: torch.device, size: int) -> TrainingState:
    """Layers of 1024 x 1024 weights (fewer if that is too large), with average and two moments."""
    weights = size // 16
    width = min(WIDTH, int(weights**0.5))
    layers = [nn.Linear(width, width, bias=False) for _ in range(weights // width**2)]
    module = nn.Sequential(*layers).to(device)
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    for weight in module.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    optimizer.zero_grad()
    return TrainingState({"model": NetworkState(module, optimizer)}, EMA(module, 0.9999))
