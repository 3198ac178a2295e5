"""A training in two processes: what they agree on, and who writes.

All trainings run one after the other in the same two processes.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from real_processes import in_processes
from safetensors.torch import load_file
from torch import Tensor, nn
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
from pae_framework.errors import RunError, UsageError
from pae_framework.system.stopping import StopRequest
from pae_framework.training.loop import train
from pae_framework.training.metrics_log import MetricAverages
from pae_framework.training.task import TrainTask
from pae_framework.world import World

STEPS = 12
SIZE = 2


@dataclass(frozen=True)
class Training:
    """One training: the task of each rank, and what differs from the usual settings."""

    task: Callable[[int], TrainTask]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a training ended in one process."""

    error: str
    """Class and message; empty: none."""
    weights: dict[str, Tensor]


def half(rank: int) -> Batches:
    """The first or last three of the six examples of each step."""

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for batch in regression_batches(start, stop):
            yield tuple(tensor[3 * rank : 3 * rank + 3] for tensor in batch)

    return batches


def halves(rank: int, **changes: Any) -> TrainTask:
    return replace(regression(noise=0, **changes), batches=half(rank))


def with_spare(values: list[float], rank: int) -> TrainTask:
    """With a weight that has no part in the loss."""
    task = halves(rank)
    task.module.spare = nn.Parameter(torch.tensor(values))
    return task


def signalled(rank: int) -> TrainTask:
    """A signal reaches the second process before its sixth step."""

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for step, batch in enumerate(half(rank)(start, stop), start):
            if step == 5 and rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    return replace(halves(rank), batches=batches)


AVERAGED = {"keep_steps": [5], "ema": 0.8, "ema_snapshots": {"every": 5}}
TRAININGS = {
    "whole": Training(halves, AVERAGED),
    "sharded": Training(halves, {**AVERAGED, "parallel": "fsdp"}),
    "spare weight": Training(partial(with_spare, [2.0]), {"weight_decay": 0.5}),
    "weight of one part": Training(partial(with_spare, [0.0, float("nan")]), {"parallel": "fsdp"}),
    "term, logged": Training(lambda rank: halves(rank, nan_at=6 if rank else None), {}),
    "term": Training(lambda rank: halves(rank, nan_at=6 if rank else None), {"log_every": 100}),
    "signal": Training(signalled, {}),
    "signal, not logged": Training(signalled, {"log_every": 100}),
    "sharded signal": Training(signalled, {"parallel": "fsdp"}),
}


def train_all(folder: Path, world: World) -> dict[str, Outcome]:
    """Every training, in a folder of its own for each process; they share no files."""
    return {name: train_one(folder / name, world, TRAININGS[name]) for name in TRAININGS}


def train_one(folder: Path, world: World, training: Training) -> Outcome:
    task, settings = training.task(world.rank), train_settings(STEPS, **training.settings)
    own = folder / f"rank{world.rank}"
    own.mkdir(parents=True)
    error = ""
    with StopRequest():  # so that signals reach each process as they do a follower
        try:
            train(task, settings, STEPS, train_context(own, world))
        except RunError as raised:
            error = f"{type(raised).__name__}: {raised}"
    is_sharded = training.settings.get("parallel") == "fsdp"
    weights = {} if is_sharded else {k: v.detach() for k, v in task.module.state_dict().items()}
    return Outcome(error, weights)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, list[Outcome]]:
    """By training, then by rank."""
    found = in_processes(SIZE, partial(train_all, folder))
    return {name: [by_rank[name] for by_rank in found] for name in TRAININGS}


Outcomes = dict[str, list[Outcome]]


@pytest.mark.parametrize("name", ["whole", "sharded"])
def test_only_rank_0_writes(outcomes: Outcomes, folder: Path, name: str) -> None:
    assert [outcome.error for outcome in outcomes[name]] == ["", ""]
    names = {path.name for path in (folder / name / "rank0").iterdir()}
    assert {"checkpoints", "metrics.jsonl"} < names
    assert {"weights.safetensors", "weights-step000005.safetensors"} < names
    assert list((folder / name / "rank1").iterdir()) == []


@pytest.mark.parametrize("name", ["whole", "sharded"])
def test_two_halves_of_the_batch_train_as_the_whole(
    outcomes: Outcomes, folder: Path, tmp_path: Path, name: str
) -> None:
    """Losses are means over images, so the mean over both halves is that of the batch of six."""
    settings = train_settings(STEPS, **AVERAGED)
    train(regression(noise=0), settings, STEPS, train_context(tmp_path))

    together = folder / name / "rank0"
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.safetensors")]
    # Weights, snapshots at 5, 10 and 12, and two checkpoints of model, optimizer and averages.
    assert len(files) == 2 + 3 * 2 + 2 * (2 + 3)
    for file in files:
        expected, found = load_file(tmp_path / file), load_file(together / file)
        assert found.keys() == expected.keys()
        for tensor, value in expected.items():
            torch.testing.assert_close(found[tensor], value, rtol=1e-5, atol=1e-6)
    for (step, loss), (other_step, other) in zip(
        steps_and_losses(tmp_path), steps_and_losses(together), strict=True
    ):
        assert step == other_step
        assert other == pytest.approx(loss, rel=1e-5)


def test_all_processes_have_the_same_weights_afterwards(outcomes: Outcomes) -> None:
    first, second = (outcome.weights for outcome in outcomes["whole"])
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_weight_without_gradient_in_any_process_is_not_changed(outcomes: Outcomes) -> None:
    """Not even by weight decay."""
    for outcome in outcomes["spare weight"]:
        assert outcome.error == ""
        assert outcome.weights["spare"].tolist() == [2.0]


def test_a_weight_that_is_not_finite_in_the_part_of_one_process_stops_all(
    outcomes: Outcomes, folder: Path
) -> None:
    for outcome in outcomes["weight of one part"]:
        assert outcome.error.startswith("RunError: after step 4 ")
    assert not (folder / "weight of one part" / "rank0" / "checkpoints").exists()


@pytest.mark.parametrize("name", ["term, logged", "term"])
def test_a_term_that_is_not_finite_in_one_process_stops_all(
    outcomes: Outcomes, folder: Path, name: str
) -> None:
    for outcome in outcomes[name]:
        assert outcome.error.startswith("RunError: at step 7 the term 'fit' is nan")
    checkpoints = (folder / name / "rank0" / "checkpoints").iterdir()
    assert [path.name for path in checkpoints] == ["step-00000004"]


@pytest.mark.parametrize("name", ["signal", "signal, not logged", "sharded signal"])
def test_a_signal_to_one_process_stops_all_at_the_same_step(
    outcomes: Outcomes, folder: Path, name: str
) -> None:
    for outcome in outcomes[name]:
        assert outcome.error.startswith("StoppedError: ")
        assert "step 6 of 12" in outcome.error
    assert (folder / name / "rank0" / "checkpoints" / "step-00000006").is_dir()
    if name != "signal, not logged":
        logged = [record["step"] for record in read_metrics(folder / name / "rank0")]
        assert logged == [1, 2, 3, 4, 5, 6]


class Several(World):
    """One of several processes, where nothing is communicated."""

    def __init__(self, size: int):
        self.size = size


@pytest.mark.parametrize(
    ("processes", "batch_size", "accumulate"), [(7, 6, 1), (4, 6, 2), (2, 6, 6)]
)
def test_a_micro_batch_too_small_for_the_processes_is_refused(
    tmp_path: Path, processes: int, batch_size: int, accumulate: int
) -> None:
    settings = train_settings(STEPS, batch_size=batch_size, accumulate=accumulate)
    with pytest.raises(UsageError, match=f"{processes} processes .*{batch_size // accumulate} im"):
        train(regression(), settings, STEPS, train_context(tmp_path, Several(processes)))
    assert list(tmp_path.iterdir()) == []


def test_images_of_all_processes_are_counted_once() -> None:
    """``batch_size`` is that of all processes."""
    speeds = []
    for world in (World(), Several(2)):
        averages = MetricAverages(6, world)
        averages.add({"loss": torch.tensor(1.0)})
        time.sleep(0.05)
        speeds.append(averages.summarize([{"loss": 1.0}])["images_per_s"])
    assert speeds[1] == pytest.approx(speeds[0], rel=0.5)


def test_one_process_communicates_nothing() -> None:
    world, values = World(), torch.tensor([1.0, 2.0])
    assert world.is_main
    assert world.sum(values) is values
    assert (world.any(True), world.any(False)) == (True, False)
    assert world.gather([values]) == [[values]]
    assert world.on_main(lambda: 3) == 3
    assert list(world.share(3)) == [0, 1, 2]
