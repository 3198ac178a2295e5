"""A training step queues its work and does not wait for the device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toy_training import train_context, train_settings

from benchmarks.operations import Synchronizations, small_subject
from pae_framework.flow.flow_settings import FlowSettings, TimeSettings
from pae_framework.flow.matching import FlowObjective
from pae_framework.training.loop import Trainer
from pae_framework.training.task import TrainTask


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.nonzero(),
        lambda x: torch.nonzero(x),
        lambda x: bool(x.any()),
        lambda x: float(x.sum()),
        lambda x: int(x.sum()),
        lambda x: x.numpy(),
        lambda x: x[x > 0],
        lambda x: 1 if x.any() else 0,
    ],
)
def test_what_waits_is_counted(wait) -> None:
    with Synchronizations() as waits:
        wait(torch.ones(3))
    assert waits.counts.total() > 0


def test_arithmetic_does_not_wait() -> None:
    with Synchronizations() as waits:
        x = torch.ones(3, requires_grad=True)
        (x * 2 + x[1:].sum()).sum().backward()
        torch.where(x > 0, x, -x)[torch.tensor([0, 1])]
    assert waits.counts == {}


@pytest.mark.parametrize("time", [TimeSettings(), TimeSettings(lowest=0.001, shift=0.7)])
@pytest.mark.parametrize("changes", [{}, {"precision": "bf16", "clip": None, "accumulate": 2}])
def test_a_step_of_the_generator_does_not_wait(tmp_path: Path, time, changes) -> None:
    subject = small_subject()
    network = subject.network()
    task = TrainTask(FlowObjective(network, FlowSettings(time=time)), saved=network)
    settings = train_settings(4, batch_size=4, ema=0.9, **changes)
    trainer = Trainer(task, settings, 4, train_context(tmp_path))
    batch = torch.randn(4, subject.channels, subject.side, subject.side), torch.arange(4)
    trainer.train_step(0, batch)  # the optimizer makes its state
    with Synchronizations() as waits:
        terms = trainer.train_step(1, batch)
    assert waits.counts == {}
    assert terms["loss"].isfinite()
