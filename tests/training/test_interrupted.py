"""Interrupted trainings: whatever stops or kills them, they end as the undisturbed one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from toy_training import (
    KilledError,
    read_metrics,
    regression,
    regression_batches,
    same_tensors,
    train_context,
    train_settings,
)

from pae_framework.contracts import Batch
from pae_framework.errors import StoppedError
from pae_framework.execution.going_on import copy_training
from pae_framework.runs.record import StageRecord
from pae_framework.system.console import PlainConsole
from pae_framework.system.files import read_json
from pae_framework.system.stopping import STOP_SIGNALS
from pae_framework.training import checkpoint
from pae_framework.training.loop import train
from pae_framework.training.progress import ProgressLine

STEPS = 12
Act = Callable[[], None]


def send(*signals: int) -> Act:
    def act() -> None:
        for number in signals:
            os.kill(os.getpid(), number)

    return act


def kill() -> None:
    raise KilledError


def acting_at(step: int, act: Act) -> Callable[[int, int], Iterator[Batch]]:
    """The batches; ``act`` is called before that of ``step``, or after the last."""

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for number, batch in enumerate(regression_batches(start, stop), start):
            if number == step:
                act()
            yield batch
        if step == stop:
            act()

    return batches


def run(directory: Path, at: int = -1, act: Act = kill, **changes: object) -> None:
    task = replace(regression(), batches=acting_at(at, act))
    given = train_settings(STEPS, **{"ema": 0.8, **changes})
    train(task, given, STEPS, train_context(directory))


def interrupted(directory: Path, at: int, act: Act, **changes: object) -> None:
    with suppress(KilledError, StoppedError):
        run(directory, at, act, **changes)


KEPT_FILES = ("weights*", "snapshots/*")


def assert_equal(one: Path, other: Path) -> None:
    """Equal weights, averages, optimizer, last losses and log; nothing else is left."""
    assert read_metrics(one) == read_metrics(other)
    last = f"checkpoints/step-{STEPS:08d}"
    assert read_json(one / last / "state.json") == read_json(other / last / "state.json")
    names, others = (
        {path.relative_to(folder) for kept in KEPT_FILES for path in folder.glob(kept)}
        for folder in (one, other)
    )
    assert names == others
    for name in (*names, *(path.relative_to(one) for path in one.glob(f"{last}/*.safetensors"))):
        assert same_tensors(load_file(one / name), load_file(other / name)), name
    for directory in (one, other):
        assert len(list((directory / "checkpoints").iterdir())) <= checkpoint.MAX_CHECKPOINTS
        assert not list(directory.rglob("*.new"))


ACTS = {"KILL": kill, **{number.name: send(number) for number in STOP_SIGNALS}}
INTERRUPTIONS = st.lists(st.tuples(st.integers(0, STEPS), st.sampled_from(sorted(ACTS))))
EVERY = st.integers(1, STEPS + 1)


def check_interruptions(
    interruptions: list[tuple[int, str]], log_every: int, checkpoint_every: int, keep: list[int]
) -> None:
    changes = {"log_every": log_every, "checkpoint_every": checkpoint_every, "keep_steps": keep}
    with TemporaryDirectory() as folder:
        whole, other = Path(folder, "whole"), Path(folder, "other")
        run(whole, **changes)
        for at, act in interruptions:
            interrupted(other, at, ACTS[act], **changes)
        run(other, **changes)
        assert_equal(whole, other)


KEPT = st.lists(st.integers(1, STEPS), max_size=2, unique=True).map(sorted)


@settings(max_examples=12)
@given(INTERRUPTIONS.filter(lambda found: len(found) < 4), EVERY, EVERY, KEPT)
def test_interrupted_anywhere_it_ends_as_the_undisturbed_training(
    interruptions: list[tuple[int, str]], log_every: int, checkpoint_every: int, keep: list[int]
):
    check_interruptions(interruptions, log_every, checkpoint_every, keep)


@pytest.mark.slow
@settings(max_examples=1000)
@given(INTERRUPTIONS, EVERY, EVERY, KEPT)
def test_interrupted_anywhere_it_ends_as_the_undisturbed_training_at_length(
    interruptions: list[tuple[int, str]], log_every: int, checkpoint_every: int, keep: list[int]
):
    check_interruptions(interruptions, log_every, checkpoint_every, keep)


@pytest.mark.parametrize("at", range(STEPS))
def test_a_stop_adds_no_line_to_the_log(tmp_path: Path, at: int):
    """Lines only at 5, 10 (log_every), 7 (keep_steps), 8 (checkpoint_every) and 12, the last."""
    changes = {"log_every": 5, "keep_steps": [7], "checkpoint_every": 8}
    interrupted(tmp_path, at, send(signal.SIGTERM), **changes)
    expected = [5, 7, 8, 10, 12]
    assert [row["step"] for row in read_metrics(tmp_path)] == [s for s in expected if s <= at + 1]
    run(tmp_path, **changes)
    assert [row["step"] for row in read_metrics(tmp_path)] == expected


@pytest.mark.parametrize("sent", STOP_SIGNALS, ids=lambda sent: sent.name)
def test_each_signal_is_a_request_to_stop(tmp_path: Path, sent: signal.Signals):
    with pytest.raises(StoppedError, match="step 6 of 12"):
        run(tmp_path, 5, send(sent))
    assert (tmp_path / "checkpoints" / "step-00000006").is_dir()


REPEATED = [
    *((number, number) for number in STOP_SIGNALS if number != signal.SIGINT),
    (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT),
]


@pytest.mark.parametrize("sent", REPEATED, ids=str)
def test_repeated_signals_are_one_request(tmp_path: Path, sent: tuple[signal.Signals, ...]):
    with pytest.raises(StoppedError, match="step 6 of 12"):
        run(tmp_path, 5, send(*sent))
    assert (tmp_path / "checkpoints" / "step-00000006").is_dir()


@pytest.mark.parametrize("others", [(), (signal.SIGTERM,)])
def test_a_second_ctrl_c_ends_at_once(tmp_path: Path, others: tuple[signal.Signals, ...]):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 5, send(signal.SIGINT, *others, signal.SIGINT))
    assert not (tmp_path / "checkpoints" / "step-00000006").exists()


def test_a_signal_during_the_save_does_not_interrupt_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save = checkpoint.save_tensors

    def save_and_signal(tensors: dict[str, Tensor], path: Path) -> None:
        send(signal.SIGTERM, signal.SIGUSR1)()
        save(tensors, path)

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(whole)
    monkeypatch.setattr(checkpoint, "save_tensors", save_and_signal)
    with pytest.raises(StoppedError, match="step 6 of 12"):
        run(stopped, 5, send(signal.SIGTERM), checkpoint_every=100)
    monkeypatch.undo()
    run(stopped, checkpoint_every=100)
    assert same_tensors(
        load_file(whole / "weights.safetensors"), load_file(stopped / "weights.safetensors")
    )


def test_sighup_stays_ignored_under_nohup(tmp_path: Path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run(tmp_path, 5, send(signal.SIGHUP))
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_restored(tmp_path: Path):
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    interrupted(tmp_path, 5, send(signal.SIGTERM))
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def recorded_progress(directory: Path, at: int, act: Act, **changes: object) -> list[int]:
    """How many steps the record says are done, each time it is written."""
    recorded: list[int] = []

    def update_record(progress: dict[str, int]) -> None:
        assert progress["total"] == STEPS
        recorded.append(progress["done"])

    context = replace(
        train_context(directory),
        progress=lambda total, done: ProgressLine(
            "test", total, done, PlainConsole(quiet=True), update_record
        ),
    )
    task = replace(regression(), batches=acting_at(at, act))
    with suppress(KilledError, StoppedError):
        train(task, train_settings(STEPS, **changes), STEPS, context)
    return recorded


def test_progress_is_recorded_at_the_start_at_checkpoints_and_at_a_stop(tmp_path: Path):
    stop = send(signal.SIGTERM)
    changes = {"checkpoint_every": 4, "log_every": 100}
    assert recorded_progress(tmp_path, 5, stop, **changes) == [0, 4, 6]
    assert recorded_progress(tmp_path, 9, kill, **changes) == [6, 8]
    assert recorded_progress(tmp_path, -1, kill, **changes) == [8, 12]


@settings(max_examples=4)
@given(st.integers(1, STEPS - 1), EVERY, EVERY, KEPT)
def test_a_longer_training_goes_on_from_any_shorter_one(
    short: int, log_every: int, checkpoint_every: int, keep: list[int]
):
    changes = {"log_every": log_every, "checkpoint_every": checkpoint_every, "ema": 0.8}
    changes |= {"schedule": "constant", "ema_snapshots": {"every": 3}}
    with TemporaryDirectory() as folder:
        whole, shorter, longer = (Path(folder, name) for name in ("whole", "shorter", "longer"))
        run(whole, keep_steps=keep, **changes)
        kept = [step for step in keep if step <= short]
        given = train_settings(short, keep_steps=kept, **changes)
        train(regression(), given, short, train_context(shorter))
        wanted = train_settings(STEPS, keep_steps=keep, **changes)
        copy_training(StageRecord(shorter), longer, short, wanted)
        run(longer, keep_steps=keep, **changes)
        assert_equal(whole, longer)
