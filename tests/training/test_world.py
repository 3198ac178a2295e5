"""Two processes that train together, as two threads: what they agree on and who writes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest
import torch
from torch import Tensor
from toy_training import (
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


def shifted(start: int, stop: int) -> Iterator[Batch]:
    """Batches other than rank 0's."""
    return regression_batches(start + 100, stop + 100)


def test_only_rank_0_writes(tmp_path: Path):
    assert train_both(tmp_path, regression(), regression(), keep_steps=[5], ema=0.8) == [None] * 2
    names = {path.name for path in (tmp_path / "rank0").iterdir()}
    assert {"checkpoints", "metrics.jsonl", "tensorboard"} < names
    assert {"weights.safetensors", "weights-step000005.safetensors"} < names
    assert list((tmp_path / "rank1").iterdir()) == []


def test_the_log_has_the_means_over_both_processes(tmp_path: Path):
    """Each rank's weights follow its own batches here, so that its losses are known."""
    alone = []
    for rank, batches in enumerate((regression_batches, shifted)):
        folder = tmp_path / f"alone{rank}"
        task = replace(regression(), batches=batches)
        train(task, train_settings(STEPS), STEPS, train_context(folder))
        alone.append(steps_and_losses(folder))
    train_both(tmp_path, regression(), replace(regression(), batches=shifted))
    expected = [(a + b) / 2 for (_, a), (_, b) in zip(*alone, strict=True)]
    assert [loss for _, loss in steps_and_losses(tmp_path / "rank0")] == pytest.approx(expected)


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
