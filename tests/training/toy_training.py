"""Toy trainings: a noisy regression, its task, and where it is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from pae_framework.contracts import Batch, LossTerms
from pae_framework.seeding import generator
from pae_framework.system.console import PlainConsole
from pae_framework.training.progress import ProgressLine
from pae_framework.training.task import TrainContext, TrainTask
from pae_framework.training.train_settings import TrainSettings
from pae_framework.world import World

Batches = Callable[[int, int], Iterator[Batch]]


class KilledError(Exception):
    """Stands for a kill: nothing in the loop expects it."""


class Regression(nn.Module):
    """A noisy regression: its loss draws from the step's generator."""

    def __init__(self, noise: float = 0.1, nan_at: int | None = None):
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.noise = noise
        self.nan_at = nan_at
        self.calls = 0
        self.dtypes: set[torch.dtype] = set()

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        x, y = batch  # (B, 4), (B, 1)
        predicted = self.net(x + self.noise * torch.randn(x.shape, generator=generator))
        self.dtypes.add(predicted.dtype)
        error = (predicted - y).square().mean()
        self.calls += 1
        if self.calls - 1 == self.nan_at:
            return {"fit": error * float("nan"), "loss": error}
        return {"fit": error, "loss": error}


def regression_batches(start: int, stop: int) -> Iterator[Batch]:
    """Six inputs (6, 4) and their sums (6, 1), a function of the step."""
    for step in range(start, stop):
        x = torch.randn(6, 4, generator=generator(1, "data", step))
        yield x, x.sum(1, keepdim=True)


def killed_at(kill_at: int | None, batches: Batches) -> Batches:
    """The same batches; asking for that of step ``kill_at`` raises :class:`KilledError`."""

    def until_killed(start: int, stop: int) -> Iterator[Batch]:
        for step, batch in enumerate(batches(start, stop), start):
            if step == kill_at:
                raise KilledError
            yield batch

    return until_killed


def repeated(batch: Batch) -> Batches:
    """The same batch at each step."""
    return lambda start, stop: iter([batch] * (stop - start))


def regression(
    kill_at: int | None = None, noise: float = 0.1, nan_at: int | None = None
) -> TrainTask:
    module = Regression(noise, nan_at)
    return TrainTask(module, killed_at(kill_at, regression_batches), saved=module.net)


def train_settings(steps: int = 12, **changes: object) -> TrainSettings:
    values = {"batch_size": 6, "lr": 0.05, "log_every": 1, "checkpoint_every": 4, **changes}
    if "epochs" not in values:
        values["steps"] = steps
    return TrainSettings.model_validate(values)


def train_context(directory: Path, world: World | None = None) -> TrainContext:
    console = PlainConsole(quiet=True)
    return TrainContext(
        directory,
        torch.device("cpu"),
        "test",
        seed=5,
        progress=lambda total, done: ProgressLine("test", total, done, console),
        world=world or World(),
    )


def read_metrics(directory: Path) -> list[dict[str, float]]:
    """Records of the metrics log without the columns that measure time."""
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    timing = {"images_per_s", "data_wait"}
    return [{k: v for k, v in json.loads(line).items() if k not in timing} for line in lines]


def steps_and_losses(directory: Path) -> list[tuple[int, float]]:
    return [(int(record["step"]), record["loss"]) for record in read_metrics(directory)]


def same_tensors(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())
