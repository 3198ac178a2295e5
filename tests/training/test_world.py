"""Two processes that train together, as two threads: what they agree on and who writes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest
import torch
from torch import Tensor
from toy_training import (
    Batches,
    read_metrics,
    regression,
    regression_batches,
    steps_and_losses,
    train_context,
    train_settings,
)

from pae_framework.contracts import Batch
from pae_framework.errors import RunError, StoppedError
from pae_framework.training.loop import train
from pae_framework.training.metrics_log import MetricAverages
from pae_framework.training.task import Reduction, TrainTask, World

STEPS = 12


def two_ranks() -> tuple[World, World]:
    """Worlds of rank 0 and rank 1 whose reduction waits for both."""
    given: dict[int, Tensor] = {}
    barrier = Barrier(2, timeout=20)

    def reduce_of(rank: int) -> Callable[[Tensor, Reduction], Tensor]:
        def reduce(values: Tensor, how: Reduction) -> Tensor:
            given[rank] = values
            barrier.wait()
            both = torch.stack([given[0], given[1]])
            barrier.wait()
            return both.mean(0) if how == "mean" else both.amax(0)

        return reduce

    return World(0, 2, reduce_of(0)), World(1, 2, reduce_of(1))


def train_both(directory: Path, *tasks: TrainTask, **changes: object) -> list[Exception | None]:
    """Train a task per rank, each in a folder of its own; returns what each raised.

    Rank 0 runs in the main thread, which receives signals.
    """

    def run(rank: int, world: World) -> Exception | None:
        context = train_context(directory / f"rank{rank}", world)
        try:
            train(tasks[rank], train_settings(STEPS, **changes), STEPS, context)
        except (RunError, StoppedError) as error:
            return error
        return None

    first, second = two_ranks()
    (directory / "rank1").mkdir()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(run, 1, second)
        return [run(0, first), other.result()]


def half(rank: int) -> Batches:
    """The first or last three of the six examples of each step."""

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for batch in regression_batches(start, stop):
            yield tuple(tensor[3 * rank : 3 * rank + 3] for tensor in batch)

    return batches


def test_only_rank_0_writes(tmp_path: Path):
    assert train_both(tmp_path, regression(), regression(), keep_steps=[5], ema=0.8) == [None] * 2
    names = {path.name for path in (tmp_path / "rank0").iterdir()}
    assert {"checkpoints", "metrics.jsonl", "tensorboard"} < names
    assert {"weights.safetensors", "weights-step000005.safetensors"} < names
    assert list((tmp_path / "rank1").iterdir()) == []


def test_two_processes_with_half_the_batch_each_equal_one_with_the_whole(tmp_path: Path):
    """Losses are means over images, so the mean over both halves is that of the batch of six."""
    whole = regression(noise=0)
    train(whole, train_settings(STEPS), STEPS, train_context(tmp_path / "whole"))
    tasks = [replace(regression(noise=0), batches=half(rank)) for rank in (0, 1)]
    assert train_both(tmp_path, *tasks) == [None, None]

    expected, first, second = (task.module.state_dict() for task in (whole, *tasks))
    for name, value in expected.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, rtol=1e-6, atol=1e-6)
    losses = [loss for _, loss in steps_and_losses(tmp_path / "whole")]
    logged = [loss for _, loss in steps_and_losses(tmp_path / "rank0")]
    assert logged == pytest.approx(losses, rel=1e-5)


def test_images_of_all_processes_are_counted():
    """Two steps of six images in one process, or in each of two."""
    speeds = []
    for world in (World(), replace(World(), size=2)):
        averages = MetricAverages(6, world)
        time.sleep(0.05)
        speeds.append(averages.summarize([{"loss": 1.0}] * 2)["images_per_s"])
    assert speeds[1] == pytest.approx(2 * speeds[0], rel=0.5)


def test_a_weight_without_gradient_in_both_processes_is_not_changed(tmp_path: Path):
    tasks = [regression(), regression()]
    for task in tasks:
        task.module.spare = torch.nn.Parameter(torch.tensor([2.0]))
    assert train_both(tmp_path, *tasks, weight_decay=0.5) == [None, None]
    assert [task.module.spare.item() for task in tasks] == [2.0, 2.0]


def test_a_weight_that_is_not_finite_in_one_process_stops_both(tmp_path: Path):
    """Its gradient is not averaged, because it has none."""
    tasks = [regression(), regression()]
    for rank, task in enumerate(tasks):
        task.module.spare = torch.nn.Parameter(torch.tensor(float("nan") if rank else 0.0))
    for error in train_both(tmp_path, *tasks):
        assert isinstance(error, RunError)
        assert "step 4 " in str(error)
    assert not (tmp_path / "rank0" / "checkpoints").exists()


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_nonfinite_term_in_one_process_stops_both(tmp_path: Path, log_every: int):
    raised = train_both(tmp_path, regression(), regression(nan_at=6), log_every=log_every)
    for error in raised:
        assert isinstance(error, RunError)
        assert "step 7 " in str(error)
        assert "'fit'" in str(error)
    folders = (tmp_path / "rank0" / "checkpoints").iterdir()
    assert [path.name for path in folders] == ["step-00000004"]


def test_a_signal_to_one_process_stops_both_at_the_same_step(tmp_path: Path):
    def batches(start: int, stop: int) -> Iterator[Batch]:
        for step, batch in enumerate(regression_batches(start, stop), start):
            if step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    raised = train_both(tmp_path, replace(regression(), batches=batches), regression())
    for error in raised:
        assert isinstance(error, StoppedError)
        assert "step 6 of 12" in str(error)
    assert (tmp_path / "rank0" / "checkpoints" / "step-00000006").is_dir()
    assert [record["step"] for record in read_metrics(tmp_path / "rank0")] == [1, 2, 3, 4, 5, 6]


def test_a_single_process_does_not_reduce():
    world = World()
    values = torch.tensor([1.0, 2.0])
    assert world.is_main
    assert world.reduce(values, "mean") is values
    assert (world.any(True), world.any(False)) == (True, False)
