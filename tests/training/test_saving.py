"""Checkpoints are written beside the training: what it waits for, and how saves and it can fail."""

from __future__ import annotations

import errno
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from toy_training import (
    KilledError,
    regression,
    regression_batches,
    same_tensors,
    train_context,
    train_settings,
)

from pae_framework.contracts import Batch
from pae_framework.errors import RunError, StoppedError, WriteError
from pae_framework.system.file_errors import writing
from pae_framework.system.files import read_json
from pae_framework.training import checkpoint, saving
from pae_framework.training.loop import train
from pae_framework.training.metrics_log import MetricsLog
from pae_framework.training.saving import HostCopy
from pae_framework.world import ONE_PROCESS

STEPS = 12
SECONDS = 30
"""Longest wait for what a correct training does at once."""
CPU = torch.device("cpu")


class Saves:
    """Lets a test hold the save of a step in its middle, and see what happens meanwhile."""

    def __init__(self, held: int):
        self._held = f"step-{held:08d}.new"
        self.begun, self.freed = threading.Event(), threading.Event()
        self.under_way: list[str] = []
        self.most = 0
        self._write = checkpoint.save_tensors

    def save_tensors(self, tensors: dict[str, torch.Tensor], path: Path) -> None:
        self.under_way.append(path.parent.name)
        self.most = max(self.most, len(self.under_way))
        if path.parent.name == self._held:
            self.begun.set()
            assert self.freed.wait(SECONDS), "the training waits for the save"
        self._write(tensors, path)
        self.under_way.remove(path.parent.name)


@pytest.fixture
def saves(monkeypatch: pytest.MonkeyPatch) -> Iterator[Saves]:
    """The save of step 4 is held until the test frees it."""
    saves = Saves(4)
    monkeypatch.setattr(checkpoint, "save_tensors", saves.save_tensors)
    yield saves
    saves.freed.set()


def acting(act: Callable[[int], None]) -> Callable[[int, int], Iterator[Batch]]:
    """The batches; ``act(step)`` is called before each."""

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for step, batch in enumerate(regression_batches(start, stop), start):
            act(step)
            yield batch

    return batches


def run(directory: Path, act: Callable[[int], None] = lambda step: None, **changes: Any) -> None:
    context = train_context(directory)
    if (record := changes.pop("record", None)) is not None:
        context = replace(context, update_record=record)
    task = replace(regression(nan_at=changes.pop("nan_at", None)), batches=acting(act))
    train(task, train_settings(STEPS, **{"ema": 0.8, **changes}), STEPS, context)


def published(directory: Path) -> set[int]:
    return {int(path.name[5:]) for path in (directory / "checkpoints").glob("step-????????")}


def files_of(directory: Path, step: int) -> dict[str, dict[str, torch.Tensor]]:
    folder = directory / "checkpoints" / f"step-{step:08d}"
    return {path.name: load_file(path) for path in folder.glob("*.safetensors")}


def join_save() -> None:
    """Wait for the save under way."""
    for thread in threading.enumerate():
        if thread.name == saving.THREAD:
            thread.join(SECONDS)


# --- beside the training --------------------------------------------------------------------------


def test_a_checkpoint_that_is_written_during_later_steps_holds_its_own(
    tmp_path: Path, saves: Saves
) -> None:
    """The save of step 4 goes on when step 7 begins; its files are those of a stop after step 4."""

    def stop(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    def kill(step: int) -> None:
        if step == 7:
            assert saves.begun.wait(SECONDS)
            assert published(tmp_path / "killed") == set()
            saves.freed.set()
            raise KilledError

    with pytest.raises(KilledError):
        run(tmp_path / "killed", kill)
    with pytest.raises(StoppedError):
        run(tmp_path / "stopped", stop)
    assert published(tmp_path / "killed") == published(tmp_path / "stopped") == {4}
    expected, found = files_of(tmp_path / "stopped", 4), files_of(tmp_path / "killed", 4)
    assert expected.keys() == found.keys()
    assert all(same_tensors(expected[name], found[name]) for name in expected)
    state = "checkpoints/step-00000004/state.json"
    assert read_json(tmp_path / "killed" / state) == read_json(tmp_path / "stopped" / state)


def test_one_save_is_under_way_at_most(tmp_path: Path, saves: Saves) -> None:
    """The save of step 8 waits for that of step 4, which is freed only after step 8 was taken."""
    timer = threading.Timer(1.0, saves.freed.set)

    def act(step: int) -> None:
        assert step < 8 or saves.freed.is_set()
        if step == 7:
            timer.start()

    run(tmp_path, act)
    assert saves.most == 1
    assert published(tmp_path) == {8, 12}


def test_seconds_of_a_save_and_of_waiting_for_it_are_recorded(tmp_path: Path, saves: Saves) -> None:
    recorded: list[dict[str, float]] = []

    def record(**values: float) -> None:
        assert threading.current_thread() is threading.main_thread()  # others write the record, too
        recorded.append(values)

    def act(step: int) -> None:
        if step == 7:
            threading.Timer(1.0, saves.freed.set).start()

    run(tmp_path, act, record=record)
    first, second, _ = recorded
    assert first["save_seconds"] >= 1.0 > first["save_wait_seconds"]
    assert second["save_wait_seconds"] >= 0.9 > second["save_seconds"]


def test_the_log_is_on_the_disk_before_the_checkpoint_that_continues_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints of steps 4, 8 and 12, a line for each step; the two newest are kept."""
    synced: list[tuple[int, set[int]]] = []
    sync = MetricsLog.sync

    def watched_sync(log: MetricsLog) -> None:
        sync(log)
        lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").count("\n")
        synced.append((lines, published(tmp_path)))

    monkeypatch.setattr(MetricsLog, "sync", watched_sync)
    run(tmp_path)
    assert [before for _, before in synced] == [set(), {4}, {4, 8}]
    assert all(lines >= step for (lines, _), step in zip(synced, (4, 8, 12), strict=True))


# --- failures -------------------------------------------------------------------------------------


def failing_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The disk is full while the checkpoint of a step is written."""
    write = checkpoint.save_tensors

    def fail(tensors: dict[str, torch.Tensor], path: Path) -> None:
        write(tensors, path)
        if path.parent.name == f"step-{step:08d}.new":
            with writing(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(checkpoint, "save_tensors", fail)


def test_a_checkpoint_that_cannot_be_written_stops_the_training_at_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the folder and the last good checkpoint."""
    failing_at(monkeypatch, 8)

    def act(step: int) -> None:
        if step == 8:  # the save of step 8 has begun
            join_save()
        assert step < 9, "the training goes on"

    with pytest.raises(WriteError) as caught:
        run(tmp_path, act)
    assert "disk is full" in str(caught.value)
    assert str(tmp_path / "checkpoints" / "step-00000008") in str(caught.value)
    assert f"last good checkpoint is {tmp_path / 'checkpoints' / 'step-00000004'}" in str(
        caught.value
    )
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]


@pytest.mark.parametrize("step", [4, 12])
def test_a_checkpoint_that_cannot_be_written_fails_the_save_after_it_and_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """However late it fails: no training ends well without its last checkpoint."""
    failing_at(monkeypatch, step)
    with pytest.raises(WriteError, match=f"step-{step:08d}"):
        run(tmp_path)
    assert step not in published(tmp_path)
    assert not (tmp_path / "weights.safetensors").exists()


def test_a_training_that_fails_finishes_the_save_under_way_and_names_it(
    tmp_path: Path, saves: Saves
) -> None:
    def act(step: int) -> None:
        if step == 6:
            threading.Timer(0.5, saves.freed.set).start()

    with pytest.raises(RunError, match="step-00000004") as caught:
        run(tmp_path, act, nan_at=6)
    assert "at step 7 " in str(caught.value)
    assert published(tmp_path) == {4}


def test_an_earlier_error_is_not_hidden_by_that_of_a_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saves: Saves
) -> None:
    failing_at(monkeypatch, 4)

    def act(step: int) -> None:
        if step == 6:
            threading.Timer(0.5, saves.freed.set).start()
            raise KilledError

    with pytest.raises(KilledError):
        run(tmp_path, act)
    assert published(tmp_path) == set()
    assert list((tmp_path / "checkpoints").iterdir()) == []


# --- stops ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_a_save_finishes_it_and_saves_its_own_step(
    tmp_path: Path, saves: Saves, sent: signal.Signals
) -> None:
    def act(step: int) -> None:
        if step == 5:
            assert saves.begun.wait(SECONDS)
            os.kill(os.getpid(), sent)
            threading.Timer(0.5, saves.freed.set).start()

    with pytest.raises(StoppedError, match="step 6 of 12"):
        run(tmp_path, act)
    assert published(tmp_path) == {4, 6}


def test_a_second_ctrl_c_leaves_the_save_under_way_unpublished(
    tmp_path: Path, saves: Saves
) -> None:
    def act(step: int) -> None:
        if step == 5:
            assert saves.begun.wait(SECONDS)
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, act)
    assert not saves.freed.is_set()  # it did not wait
    saves.freed.set()
    join_save()
    assert list((tmp_path / "checkpoints").iterdir()) == []


# --- the copy in main memory ----------------------------------------------------------------------

DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)
SHAPES = st.lists(st.integers(0, 5), max_size=3)
TENSORS = st.dictionaries(
    st.text("ab.", min_size=1), st.tuples(SHAPES, st.sampled_from(DTYPES)), max_size=6
)


def made(tensors: dict[str, tuple[list[int], torch.dtype]], level: int) -> dict[str, torch.Tensor]:
    """Tensors with different values, with their last dimension first in memory."""
    found = {}
    for name, (shape, dtype) in tensors.items():
        count = math.prod(shape)
        values = (torch.arange(count) * 7 + level) % 100
        found[name] = (
            values.to(dtype).reshape(shape[::-1]).permute(tuple(reversed(range(len(shape)))))
        )
    return found


@given(TENSORS, TENSORS, st.integers(1, 200))
def test_a_copy_has_equal_tensors_that_later_changes_do_not_reach(
    first: dict[str, Any], later: dict[str, Any], chunk: int
) -> None:
    """Also of names that are new at the second copy, and however small the chunks of memory are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "CHUNK", chunk)
        copies = HostCopy(CPU)
        for level, given_tensors in enumerate((first, later | first)):
            source = {"file": made(given_tensors, level)}
            copied = copies.take(source, ONE_PROCESS)
            expected = {name: value.clone() for name, value in source["file"].items()}
            for value in source["file"].values():
                value.zero_()
            assert copied["file"].keys() == expected.keys()
            for name, value in expected.items():
                assert copied["file"][name].dtype == value.dtype
                assert copied["file"][name].shape == value.shape
                assert torch.equal(copied["file"][name], value)
                assert copied["file"][name].is_contiguous()


def test_the_next_copy_has_the_same_memory(tmp_path: Path) -> None:
    copies, tensors = HostCopy(CPU), {"file": {"a": torch.ones(3), "b": torch.ones(2, 2)}}
    first = copies.take(tensors, ONE_PROCESS)["file"]
    second = copies.take(tensors, ONE_PROCESS)["file"]
    assert [x.data_ptr() for x in first.values()] == [x.data_ptr() for x in second.values()]
    # A file of tensors that lie side by side in one piece of memory.
    checkpoint.save_tensors(second, tmp_path / "file")
    assert same_tensors(load_file(tmp_path / "file"), tensors["file"])


def test_memory_is_allocated_in_chunks_that_waste_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1000 bytes, for tensors of 320 bytes: three in each, and one in the last."""
    allocated: list[int] = []
    allocate = HostCopy._memory

    def memory(copies: HostCopy, size: int) -> torch.Tensor:
        allocated.append(size)
        return allocate(copies, size)

    monkeypatch.setattr(HostCopy, "_memory", memory)
    monkeypatch.setattr(saving, "CHUNK", 1000)
    HostCopy(CPU).take({"file": {str(n): torch.ones(80) for n in range(7)}}, ONE_PROCESS)
    assert allocated == [1000, 1000, 320]


def test_memory_that_cannot_be_pinned_is_replaced_by_other_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """There is no GPU here, for which torch could pin memory."""
    if torch.cuda.is_available():
        pytest.skip("memory can be pinned")
    copies = HostCopy(CPU)
    copies._pinned = True
    copied = copies.take({"file": {"a": torch.ones(3)}}, ONE_PROCESS)
    copies.take({"file": {"b": torch.ones(3)}}, ONE_PROCESS)
    assert torch.equal(copied["file"]["a"], torch.ones(3))
    assert caplog.text.count("pinned") == 1
