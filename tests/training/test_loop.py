"""The training loop: exact resume, accumulation, saved files, divergence, stop requests."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from toy_training import (
    KilledError,
    Regression,
    read_metrics,
    regression,
    regression_batches,
    repeated,
    same_tensors,
    steps_and_losses,
    train_context,
    train_settings,
)

from pae_framework import seeding, tensor_files
from pae_framework.contracts import Batch, LossTerms
from pae_framework.errors import RunError, StoppedError, UsageError, WriteError
from pae_framework.seeding import Rows
from pae_framework.training import loop
from pae_framework.training.loop import train
from pae_framework.training.metrics_log import MetricsLog
from pae_framework.training.task import TrainTask

STEPS = 12


def run(directory: Path, subject: TrainTask, **changes: object) -> dict[str, torch.Tensor]:
    settings = train_settings(STEPS, **{"ema": 0.8, **changes})
    train(subject, settings, STEPS, train_context(directory))
    return load_file(directory / "weights.safetensors")


@pytest.mark.parametrize("kill_at", [1, 4, 7, 11])
def test_a_killed_training_ends_with_the_same_bits_and_the_same_log(tmp_path: Path, kill_at: int):
    whole = run(tmp_path / "whole", regression())
    with pytest.raises(KilledError):
        run(tmp_path / "killed", regression(kill_at=kill_at))
    resumed = run(tmp_path / "killed", regression())
    assert same_tensors(whole, resumed)
    assert steps_and_losses(tmp_path / "killed") == steps_and_losses(tmp_path / "whole")


def test_training_learns_something(tmp_path: Path):
    run(tmp_path, regression())
    losses = [loss for _, loss in steps_and_losses(tmp_path)]
    assert losses[-1] < losses[0]


def test_accumulation_trains_like_the_whole_batch(tmp_path: Path):
    """Without randomness in the loss, accumulation changes nothing but the order of sums."""
    whole = run(tmp_path / "whole", regression(noise=0.0))
    parts = run(tmp_path / "parts", regression(noise=0.0), accumulate=3)
    for name, value in whole.items():
        assert torch.allclose(value, parts[name], atol=1e-5)


def test_the_final_weights_are_the_average_and_kept_steps_are_saved(tmp_path: Path):
    subject = regression()
    averaged = run(tmp_path, subject, keep_steps=[5])
    assert (tmp_path / "weights-step000005.safetensors").is_file()
    assert torch.equal(subject.module.state_dict()["net.0.weight"], averaged["0.weight"])
    checkpoint = load_file(tmp_path / "checkpoints" / f"step-{STEPS:08d}" / "model.safetensors")
    assert not torch.equal(checkpoint["net.0.weight"], averaged["0.weight"])


def test_weights_fit_the_saved_submodule_and_checkpoints_the_whole_module(tmp_path: Path):
    run(tmp_path, regression(), keep_steps=[5])
    for name in ("weights.safetensors", "weights-step000005.safetensors"):
        Regression().net.load_state_dict(load_file(tmp_path / name))
    checkpoint = tmp_path / "checkpoints" / f"step-{STEPS:08d}" / "model.safetensors"
    Regression().load_state_dict(load_file(checkpoint))


def test_without_saved_the_whole_module_is_saved(tmp_path: Path):
    subject = regression()
    weights = run(tmp_path, TrainTask(subject.module, subject.batches))
    Regression().load_state_dict(weights)


def test_the_module_is_called_once_per_micro_batch(tmp_path: Path):
    """Wrappers (DDP, compilation) and hooks of the module therefore see every micro-batch."""
    subject, calls = regression(), []
    subject.module.register_forward_hook(lambda module, given, terms: calls.append(len(given[0])))
    run(tmp_path, subject, accumulate=3)
    assert calls == [2] * 3 * STEPS


def test_a_term_that_is_not_finite_stops_the_run_and_is_named(tmp_path: Path):
    with pytest.raises(RunError, match=r"step 7 .*'fit'.* nan\b.*step-00000004") as refused:
        run(tmp_path, regression(nan_at=6))
    assert "deterministic" in str(refused.value)  # trying again does not help


class BadGradient(Regression):
    """Its loss is finite, but its gradient is not: the derivative of sqrt at 0."""

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        terms = super().forward(batch, generator)
        if self.calls == 4:
            terms["loss"] = terms["loss"] + (0 * self.net[0].weight.sum()).sqrt()
        return terms


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_finite_stops_the_run_clipped_or_not(tmp_path: Path, clip):
    subject = TrainTask(BadGradient(), regression_batches)
    with pytest.raises(RunError, match=r"step 4 .*'grad_norm'.* nan\b"):
        run(tmp_path, subject, clip=clip, log_every=100, checkpoint_every=2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


class Slope(nn.Module):
    """Loss 3 a + 4 b: the gradient is (3, 4), its norm 5."""

    def __init__(self) -> None:
        super().__init__()
        self.ab = nn.Parameter(torch.zeros(2))

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        return {"loss": 3 * self.ab[0] + 4 * self.ab[1]}


@pytest.mark.parametrize(
    ("clip", "gradient"), [(1.0, (0.6, 0.8)), (10.0, (3.0, 4.0)), (None, (3.0, 4.0))]
)
def test_a_gradient_is_clipped_to_the_norm_clip(tmp_path: Path, clip, gradient):
    subject = TrainTask(Slope(), repeated((torch.zeros(6),)))
    train(subject, train_settings(clip=clip, betas=(0.75, 0.5)), 1, train_context(tmp_path))
    saved = load_file(tmp_path / "checkpoints" / "step-00000001" / "optimizer.safetensors")
    # AdamW's first moments: (1 - 0.75) g and (1 - 0.5) g^2.
    assert saved["ab.exp_avg"].tolist() == pytest.approx([0.25 * g for g in gradient], rel=1e-5)
    assert saved["ab.exp_avg_sq"].tolist() == pytest.approx([g * g / 2 for g in gradient], rel=1e-5)
    (logged,) = read_metrics(tmp_path)
    assert logged["grad_norm"] == pytest.approx(5.0)


def test_keep_steps_beyond_the_last_are_rejected_before_training(tmp_path: Path):
    """With `epochs`; with `steps` the check of the recipe does it."""
    with pytest.raises(UsageError, match=r"keep_steps.*\b13\b.*\b12\b"):
        run(tmp_path / "new", regression(), epochs=2, keep_steps=[5, 13])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("log_every", [1, 5, 100])
def test_the_first_nonfinite_step_is_named_for_any_log_interval(tmp_path: Path, log_every: int):
    with pytest.raises(RunError, match=r"step 7 .*step-00000004"):
        run(tmp_path, regression(nan_at=6), log_every=log_every)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]


def test_without_a_checkpoint_the_error_says_so(tmp_path: Path):
    with pytest.raises(RunError, match=r"step 2 .* no checkpoint"):
        run(tmp_path, regression(nan_at=1))


class Cliff(Regression):
    """Its loss is finite, but its weights are not after step 8."""

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        terms = super().forward(batch, generator)
        if self.calls == 8 and terms["loss"].isfinite():
            self.spoil()
        return terms

    def spoil(self) -> None:
        with torch.no_grad():
            self.net[2].bias.fill_(float("inf"))


@pytest.mark.parametrize("kept", [{}, {"keep_steps": [8], "checkpoint_every": 4}])
def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, kept: dict[str, object]):
    module = Cliff()
    with pytest.raises(RunError, match=r"step 8 .*model: net\.2\.bias.*step-00000004"):
        run(tmp_path, TrainTask(module, regression_batches, saved=module.net), **kept)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]
    assert not list(tmp_path.glob("weights*"))


class Root(nn.Module):
    """Loss sqrt(w), from w = 1 downwards: AdamW moves w by about its learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        return {"loss": self.w.sqrt()}


def test_after_divergence_training_resumes_from_the_last_good_checkpoint(tmp_path: Path):
    """With 0.4 a step, w is 1, 0.6, 0.2, below 0; from 0.2 on with 0.01, it stays above."""

    def go(lr: float) -> None:
        subject = TrainTask(Root(), repeated((torch.zeros(6),)))
        given = train_settings(schedule="constant", checkpoint_every=2, lr=lr)
        train(subject, given, STEPS, train_context(tmp_path))

    with pytest.raises(RunError, match=r"step 4 .*step-00000002"):
        go(lr=0.4)
    go(lr=0.01)
    steps, losses = zip(*steps_and_losses(tmp_path), strict=True)
    assert steps == tuple(range(1, STEPS + 1))
    assert losses[:2] == pytest.approx([1.0, 0.6**0.5], rel=1e-3)
    assert min(losses) > 0


class Jumpy(nn.Module):
    """Loss 1 at each step, but ``height`` at step ``at`` (the first is 0)."""

    def __init__(self, at: int, height: float):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))
        self.at, self.height, self.step = at, height, -1

    def begin(self, step: int) -> None:
        self.step = step

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        return {"loss": self.w.mean() * 0 + (self.height if self.step == self.at else 1.0)}


def jumpy(directory: Path, at: int = 25, height: float = 5.5, total: int = 30, **changes) -> None:
    module = Jumpy(at, height)
    subject = TrainTask(module, repeated((torch.zeros(6),)), begin_step=module.begin)
    train(subject, train_settings(**changes), total, train_context(directory))


def test_a_loss_that_jumps_stops_the_run(tmp_path: Path):
    with pytest.raises(RunError, match=r"step 26 .*jumps.* 5\.5\b.*\b5 times 1\b.*step-00000024"):
        jumpy(tmp_path, jump=5.0, log_every=100)


@pytest.mark.parametrize(
    "calm", [{"jump": None}, {"jump": 6.0}, {"jump": 5.0, "at": 19}], ids=["off", "lower", "early"]
)
def test_no_jump_below_the_limit_or_within_the_first_steps(tmp_path: Path, calm):
    jumpy(tmp_path, **calm)


def test_after_a_jump_training_resumes_with_a_larger_limit(tmp_path: Path):
    with pytest.raises(RunError, match="step 26 "):
        jumpy(tmp_path, jump=5.0)
    jumpy(tmp_path, jump=6.0)
    assert [step for step, _ in steps_and_losses(tmp_path)] == list(range(1, 31))


def test_a_resumed_training_knows_earlier_losses(tmp_path: Path):
    jumpy(tmp_path, total=24, jump=5.0)
    with pytest.raises(RunError, match=r"step 26 .*\b25 steps"):
        jumpy(tmp_path, jump=5.0)


def test_a_signal_stops_at_a_step_boundary_with_a_checkpoint(tmp_path: Path):
    subject = regression()

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for step, batch in enumerate(subject.batches(start, stop), start):
            if step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with pytest.raises(StoppedError, match="step 6 of 12"):
        run(tmp_path, replace(subject, batches=batches))
    assert (tmp_path / "checkpoints" / "step-00000006").is_dir()
    whole = run(tmp_path / "whole", regression())
    resumed = run(tmp_path, regression())
    assert same_tensors(whole, resumed)


@pytest.mark.parametrize("done", [0, 1, 2, 3, STEPS])
def test_a_stop_at_any_time_leaves_a_checkpoint_of_the_last_step(tmp_path: Path, done: int):
    """The signal arrives before the batch after ``done`` steps, at last after the last batch."""

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for step, batch in enumerate(regression_batches(start, stop), start):
            if step == done:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch
        if done == STEPS:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = run(tmp_path / "whole", regression())
    last = min(done + 1, STEPS)
    with pytest.raises(StoppedError, match=f"step {last} of {STEPS}"):
        run(tmp_path, replace(regression(), batches=batches), checkpoint_every=100)
    assert (tmp_path / "checkpoints" / f"step-{last:08d}").is_dir()
    resumed = run(tmp_path, regression())
    assert same_tensors(whole, resumed)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("float32", torch.float32)]
)
def test_bf16_computes_in_bf16_and_keeps_the_weights_float32(tmp_path: Path, precision, dtype):
    module = Regression()
    weights = run(tmp_path, TrainTask(module, regression_batches), precision=precision)
    assert module.dtypes == {dtype}
    assert {value.dtype for value in weights.values()} == {torch.float32}


def test_on_the_cpu_noise_of_the_device_is_that_of_the_cpu(tmp_path: Path):
    cpu, device = (
        run(tmp_path / x, regression(), noise=x, accumulate=2) for x in ("cpu", "device")
    )
    assert same_tensors(cpu, device)


@pytest.mark.parametrize(("noise", "where"), [("cpu", "cpu"), ("device", "cpu:0")])
def test_noise_says_where_the_generators_of_both_networks_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: str, where: str
):
    made: list[tuple[object, ...]] = []

    def recorded(*parts: int | str, device: torch.device | str, rows: Rows) -> torch.Generator:
        made.append((*parts, str(device)))
        return seeding.generator(*parts, rows=rows)

    monkeypatch.setattr(loop, "generator", recorded)
    task = replace(regression(), discriminator=TrainTask(Critic()))
    context = replace(train_context(tmp_path), device=torch.device("cpu", 0))
    settings = train_settings(1, noise=noise, accumulate=2)
    loop.Trainer(task, settings, 1, context).train_step(0, next(regression_batches(0, 1)))
    assert made == [
        (5, "test", *purpose, 0, micro_batch, where)
        for purpose in ((), ("opponent",))
        for micro_batch in (0, 1)
    ]


class Critic(nn.Module):
    """A second network to train."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 1)

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        return {"score": (score := self.net(batch[0]).mean()), "loss": score}


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("failing", ["checkpoint", "log", "weights", "kept weights"])
def test_a_full_disk_names_the_last_good_checkpoint_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
):
    whole = run(tmp_path / "whole", regression(), keep_steps=[9])
    folder = tmp_path / "full"
    with monkeypatch.context() as full:
        fill_disk(full, failing)
        with pytest.raises(WriteError) as refused:
            run(folder, regression(), keep_steps=[9])
    message = str(refused.value)
    assert "disk is full" in message
    assert f"the last good checkpoint is {folder / 'checkpoints' / 'step-'}" in message
    assert not list(folder.rglob("*.new"))
    assert same_tensors(whole, run(folder, regression(), keep_steps=[9]))


def fill_disk(monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    """Let writing of this kind of file fail, after step 8 if it is written repeatedly."""
    if failing in ("weights", "kept weights", "checkpoint"):
        name = {"weights": "weights.safetensors", "kept weights": "weights-step"}.get(
            failing, "model.safetensors"
        )
        save = tensor_files.save_file

        def save_file(tensors, path: Path, **more: object) -> None:
            late = failing != "checkpoint" or "step-00000012" in str(path)
            if path.name.removeprefix(".").startswith(name) and late:
                path.write_bytes(b"half")
                raise SafetensorError("I/O error: No space left on device (os error 28)")
            save(tensors, path, **more)

        monkeypatch.setattr(tensor_files, "save_file", save_file)
    else:
        write = MetricsLog.write

        def write_log(log: MetricsLog, step: int, values: dict[str, float]) -> None:
            if step > 8:
                log._file = SimpleNamespace(write=fail, close=log._file.close)
            write(log, step, values)

        monkeypatch.setattr(MetricsLog, "write", write_log)


def fail(*values: object) -> None:
    raise FULL
