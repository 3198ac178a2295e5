"""A discriminator: two networks trained against each other, each with its own optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from toy_training import KilledError, killed_at, read_metrics, train_context, train_settings

from pae_framework.contracts import Batch, LossTerms
from pae_framework.errors import RunError
from pae_framework.seeding import generator
from pae_framework.training.loop import train
from pae_framework.training.task import TrainTask
from pae_framework.training.train_settings import OptimizerSettings

STEPS = 6


class Critic(nn.Module):
    """Scores points; records its mode at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 1)
        self.register_buffer("calls", torch.zeros(()))
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.training)
        self.calls += 1
        return self.net(x).mean()


class Maker(nn.Module):
    """Moves points to raise their score by the critic, which is not a sub-module."""

    def __init__(self, critic: Critic):
        super().__init__()
        self.net = nn.Linear(2, 2)
        self.critic = (critic,)

    def made(self, batch: Batch, draw: torch.Generator) -> Tensor:
        return self.net(batch[0] + torch.randn(batch[0].shape, generator=draw))

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        made = self.made(batch, generator)
        terms = {"size": made.square().mean(), "fool": -self.critic[0](made)}
        return terms | {"loss": terms["size"] + terms["fool"]}


class CriticLoss(nn.Module):
    """Separates given points from made ones; the maker is not a sub-module."""

    def __init__(self, critic: Critic, maker: Maker, diverges: bool = False):
        super().__init__()
        self.critic = critic
        self.maker = (maker,)
        self.diverges = diverges
        self.gradients: list[Tensor | None] = []
        self.seeds: list[int] = []

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        self.gradients.append(self.critic.net.weight.grad)
        self.seeds.append(generator.initial_seed())
        with torch.no_grad():
            made = self.maker[0].made(batch, generator)
        apart = self.critic(made) - self.critic(batch[0])
        return {"apart": apart * float("nan") if self.diverges else apart, "loss": apart}


def pair(first_step: int = 0, diverges: bool = False, **given: object) -> TrainTask:
    torch.manual_seed(0)
    critic = Critic()
    maker = Maker(critic)

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            yield (torch.randn(4, 2, generator=generator(1, "data", step)),)

    settings = OptimizerSettings.model_validate({"lr": 0.05, **given})
    module = CriticLoss(critic, maker, diverges)
    discriminator = TrainTask(module, optimizer=settings, first_step=first_step)
    return TrainTask(maker, batches, discriminator=discriminator)


def run(directory: Path, subject: TrainTask, total: int = STEPS, **changes: object) -> None:
    values = {"batch_size": 4, "lr": 0.02, "checkpoint_every": 3, **changes}
    train(subject, train_settings(STEPS, **values), total, train_context(directory))


def critic_loss(subject: TrainTask) -> CriticLoss:
    assert subject.discriminator
    module = subject.discriminator.module
    assert isinstance(module, CriticLoss)
    return module


@pytest.mark.parametrize("kill_at", [3, 4, 5])
def test_a_killed_training_with_a_discriminator_ends_with_the_same_bits(
    tmp_path: Path, kill_at: int
):
    """Both networks, their optimizers and the average, with accumulation and a late start."""
    given = {"accumulate": 2, "ema": 0.8}
    run(tmp_path / "whole", pair(first_step=2), **given)

    subject = pair(first_step=2)
    killed = replace(subject, batches=killed_at(kill_at, subject.batches))
    with pytest.raises(KilledError):
        run(tmp_path / "parts", killed, **given)
    run(tmp_path / "parts", pair(first_step=2), **given)

    whole, parts = (
        tmp_path / name / "checkpoints" / "step-00000006" for name in ("whole", "parts")
    )
    files = {path.name for path in whole.glob("*.safetensors")}
    assert {"ema.safetensors", "opponent.safetensors", "opponent_optimizer.safetensors"} < files
    for name in files:
        expected, found = load_file(whole / name), load_file(parts / name)
        assert expected.keys() == found.keys()
        assert all(torch.equal(value, found[key]) for key, value in expected.items())
    assert read_metrics(tmp_path / "whole") == read_metrics(tmp_path / "parts")


def test_the_discriminator_and_its_schedule_start_at_first_step(tmp_path: Path):
    subject = pair(first_step=2, warmup_steps=2, schedule="cosine", final_lr=0.5, lr=0.1)
    start = critic_loss(subject).critic.net.weight.detach().clone()
    run(tmp_path, subject)
    rates = [record.get("opponent_lr") for record in read_metrics(tmp_path)]
    # Four steps of its own: half, all, then a cosine over its steps 2 and 3 to half of the peak.
    assert rates == [None, None, *map(pytest.approx, (0.05, 0.1, 0.1, 0.05))]
    assert not torch.equal(start, critic_loss(subject).critic.net.weight)

    never = pair(first_step=STEPS)
    start = critic_loss(never).critic.net.weight.detach().clone()
    run(tmp_path / "never", never)
    assert torch.equal(start, critic_loss(never).critic.net.weight)


def test_the_log_has_the_terms_of_both_networks(tmp_path: Path):
    run(tmp_path, pair(first_step=1))
    task = {"step", "loss", "size", "fool", "grad_norm", "lr"}
    opponent = {"apart", "opponent_loss", "opponent_grad_norm", "opponent_lr"}
    records = read_metrics(tmp_path)
    assert records[0].keys() == task
    assert records[1].keys() == task | opponent
    for record in records:
        assert record["loss"] == pytest.approx(record["size"] + record["fool"], abs=1e-6)


def test_the_discriminator_is_in_train_mode_only_for_its_own_step(tmp_path: Path):
    subject = pair()
    run(tmp_path, subject)
    # The task asks once, then the discriminator scores made and given points.
    assert critic_loss(subject).critic.modes == [False, True, True] * STEPS


def test_gradients_of_the_other_network_are_dropped(tmp_path: Path):
    """The loss 'fool' reaches the critic's weights; in its own step it begins without."""
    subject = pair()
    run(tmp_path, subject, accumulate=2)
    firsts = critic_loss(subject).gradients[::2]
    assert firsts == [None] * STEPS


def test_the_discriminator_has_its_own_clipping(tmp_path: Path):
    """The first moments after one step are (1 - 0.9) times the clipped gradient."""
    run(tmp_path, pair(clip=0.001), total=1, clip=None)
    saved = load_file(tmp_path / "checkpoints" / "step-00000001" / "opponent_optimizer.safetensors")
    moments = [value for name, value in saved.items() if name.endswith(".exp_avg")]
    norm = torch.cat([moment.flatten() for moment in moments]).norm().item()
    assert norm == pytest.approx(0.1 * 0.001, rel=1e-3)
    assert read_metrics(tmp_path)[0]["opponent_grad_norm"] > 0.001


def test_each_micro_batch_of_each_step_has_its_own_generator(tmp_path: Path):
    subject = pair()
    run(tmp_path, subject, accumulate=2)
    seeds = critic_loss(subject).seeds
    assert len(set(seeds)) == len(seeds) == 2 * STEPS
    expected = generator(5, "test", "opponent", 1, 0).initial_seed()
    assert seeds[2] == expected


def test_a_nonfinite_discriminator_term_stops_the_run_and_is_named(tmp_path: Path):
    with pytest.raises(RunError, match=r"step 3 .*'apart'.* nan\b"):
        run(tmp_path, pair(first_step=2, diverges=True), log_every=50)
    assert not (tmp_path / "checkpoints").exists()


def test_a_training_without_a_discriminator_resumes_with_one(tmp_path: Path):
    """A checkpoint without a discriminator, as all were once: it starts as new."""
    run(tmp_path, replace(pair(), discriminator=None), total=3)
    run(tmp_path, pair())
    assert [("apart" in record) for record in read_metrics(tmp_path)] == [False] * 3 + [True] * 3


def test_begin_step_is_called_before_each_step(tmp_path: Path):
    begun: list[int] = []
    subject = pair()
    run(tmp_path, replace(subject, begin_step=begun.append), total=3)
    assert begun == [0, 1, 2]
    run(tmp_path, replace(pair(), begin_step=begun.append))
    assert begun == [0, 1, 2, 3, 4, 5]
