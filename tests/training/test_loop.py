"""The training loop: exact resume, exact accumulation, what it leaves, what stops it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from pae_framework.contracts import LossTerms
from pae_framework.errors import RunError
from pae_framework.seeding import generator
from pae_framework.settings import TrainSettings
from pae_framework.training.loop import Batch, Trainee, Workplace, train
from pae_framework.training.progress import ProgressLine

STEPS = 12


class KilledError(Exception):
    """Stands for a kill: nothing of the loop sees it coming."""


def workplace(directory: Path) -> Workplace:
    console = Console(quiet=True)
    return Workplace(
        directory,
        torch.device("cpu"),
        "test",
        seed=5,
        progress=lambda total, done: ProgressLine("test", total, done, console),
    )


def trainee(kill_at: int | None = None, poison_at: int | None = None) -> Trainee:
    """A noisy regression: its loss draws from the step's generator."""
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    taken = iter(range(10**6))

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            if step == kill_at:
                raise KilledError
            x = torch.randn(6, 4, generator=generator(1, "data", step))
            yield x, x.sum(1, keepdim=True)

    def loss(batch: Batch, randomness: torch.Generator) -> LossTerms:
        x, y = batch
        noise = 0.1 * torch.randn(x.shape, generator=randomness)
        error = (module(x + noise) - y).square().mean()
        if poison_at is not None and next(taken) == poison_at:
            return {"fit": error * float("nan"), "loss": error}
        return {"fit": error, "loss": error}

    return Trainee(module, loss, batches)


def settings(**changes: object) -> TrainSettings:
    values = {"steps": STEPS, "batch_size": 6, "lr": 0.05, "ema": 0.8, "log_every": 1}
    return TrainSettings.model_validate({**values, "checkpoint_every": 4, **changes})


def run(directory: Path, subject: Trainee, **changes: object) -> dict[str, torch.Tensor]:
    train(subject, settings(**changes), STEPS, workplace(directory))
    return load_file(directory / "weights.safetensors")


def steps_and_losses(directory: Path) -> list[tuple[int, float]]:
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [(record["step"], record["loss"]) for record in map(json.loads, lines)]


@pytest.mark.parametrize("kill_at", [1, 4, 7, 11])
def test_a_killed_training_ends_with_the_same_bits_and_the_same_log(tmp_path: Path, kill_at: int):
    whole = run(tmp_path / "whole", trainee())
    with pytest.raises(KilledError):
        run(tmp_path / "killed", trainee(kill_at=kill_at))
    resumed = run(tmp_path / "killed", trainee())
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert steps_and_losses(tmp_path / "killed") == steps_and_losses(tmp_path / "whole")


def test_training_learns_something(tmp_path: Path):
    run(tmp_path, trainee())
    losses = [loss for _, loss in steps_and_losses(tmp_path)]
    assert losses[-1] < losses[0]


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(tmp_path: Path):
    """Without randomness in the loss, accumulation changes nothing but the order of sums."""

    def silent() -> Trainee:
        noisy = trainee()

        def loss(batch: Batch, randomness: torch.Generator) -> LossTerms:
            error = (noisy.module(batch[0]) - batch[1]).square().mean()
            return {"loss": error}

        return Trainee(noisy.module, loss, noisy.batches)

    whole = run(tmp_path / "whole", silent())
    parts = run(tmp_path / "parts", silent(), accumulate=3)
    for name, value in whole.items():
        assert torch.allclose(value, parts[name], atol=1e-5)


def test_the_average_is_what_is_left_and_kept_steps_are_there(tmp_path: Path):
    subject = trainee()
    averaged = run(tmp_path, subject, keep_steps=[5])
    assert (tmp_path / "weights-step000005.safetensors").is_file()
    assert torch.equal(subject.module.state_dict()["0.weight"], averaged["0.weight"])
    checkpoint = load_file(tmp_path / "checkpoints" / f"step-{STEPS:08d}" / "model.safetensors")
    assert not torch.equal(checkpoint["0.weight"], averaged["0.weight"])


def test_a_term_that_is_not_finite_stops_the_run_and_is_named(tmp_path: Path):
    with pytest.raises(RunError, match=r"'fit' is nan .*up to step 7"):
        run(tmp_path, trainee(poison_at=6))


def test_no_checkpoint_is_saved_after_a_loss_that_is_not_finite(tmp_path: Path):
    with pytest.raises(RunError):
        run(tmp_path, trainee(poison_at=6), log_every=100)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]


def test_a_signal_stops_at_a_step_boundary_with_a_checkpoint(tmp_path: Path):
    subject = trainee()

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for step, batch in enumerate(subject.batches(start, stop), start):
            if step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    interrupted = Trainee(subject.module, subject.loss, batches)
    with pytest.raises(RunError, match="stopped at step 6 of 12"):
        run(tmp_path, interrupted)
    assert (tmp_path / "checkpoints" / "step-00000006").is_dir()
    whole = run(tmp_path / "whole", trainee())
    resumed = run(tmp_path, trainee())
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_bf16_autocast_keeps_the_weights_float32(tmp_path: Path):
    weights = run(tmp_path, trainee(), precision="bf16")
    assert {value.dtype for value in weights.values()} == {torch.float32}


def test_tensorboard_gets_the_same_figures(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, trainee())
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    steps, losses = zip(*steps_and_losses(tmp_path), strict=True)
    logged = events.Scalars("loss")
    assert [event.step for event in logged] == list(steps)
    assert [event.value for event in logged] == pytest.approx(losses, rel=1e-6)
