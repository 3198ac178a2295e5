"""Power that fails, or a kill, at any moment: nothing that was published is lost.

A disk keeps the content of a file once the file was synced, and a name once its folder was. What
was not synced may be lost; what was removed may be gone at once.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_checkpoint import fresh_state, same, trained_state
from toy_training import (
    read_metrics,
    regression,
    same_tensors,
    train_context,
    train_settings,
)

from pae_framework.data.latent_dataset import write_shard
from pae_framework.errors import WriteError
from pae_framework.system.files import make_folder, point, replacing, write_json
from pae_framework.tensor_files import save_tensors, save_torch_file
from pae_framework.training.checkpoint import Checkpoints
from pae_framework.training.loop import train

REMOVALS = {"os.remove", "os.rmdir", "shutil.rmtree"}
CHANGES = {"os.rename", "os.mkdir", "os.symlink", *REMOVALS}


class Disk:
    """What would be left of a folder without power, from the calls of this process."""

    def __init__(self, root: Path):
        self.root = root
        self.content: set[int] = set()
        """Inodes of synced files."""
        self.names: dict[int, dict[str, int]] = {}
        """Inode of a synced folder -> names in it -> their inodes."""

    def sync(self, path: Path) -> None:
        inode = path.stat().st_ino
        if path.is_dir():
            self.names[inode] = {x.name: x.lstat().st_ino for x in path.iterdir()}
        else:
            self.content.add(inode)

    def remove(self, path: Path) -> None:
        if os.path.lexists(path):
            self.names.get(path.parent.stat().st_ino, {}).pop(path.name, None)
            self.content.discard(path.lstat().st_ino)

    def still_names(self, path: Path) -> bool:
        """Whether a path would still lead to the same file or folder."""
        if path == self.root:
            return True
        if not os.path.lexists(path) or not self.still_names(path.parent):
            return False
        names = self.names.get(path.parent.stat().st_ino, {})
        return names.get(path.name) == path.lstat().st_ino

    def keeps(self, path: Path) -> bool:
        """Whether a file, a link, or a folder with all that is in it would be left."""
        if not self.still_names(path):
            return False
        if path.is_dir() and not path.is_symlink():
            return all(self.keeps(inside) for inside in path.iterdir())
        return path.is_symlink() or path.stat().st_ino in self.content


_watching: list[Callable[[str, tuple[object, ...]], None]] = []
sys.addaudithook(lambda event, arguments: [watch(event, arguments) for watch in _watching] and None)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """The disk of the test's folder."""
    disk, fsync = Disk(tmp_path), os.fsync

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in REMOVALS and Path(str(arguments[0])).is_absolute():
            disk.remove(Path(str(arguments[0])))

    def watched_fsync(descriptor: int) -> None:
        fsync(descriptor)
        disk.sync(Path(f"/proc/self/fd/{descriptor}").resolve())

    monkeypatch.setattr(os, "fsync", watched_fsync)
    _watching.append(watch)
    yield disk
    _watching.remove(watch)


def write_all(path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(b"all")


def write_link(path: Path) -> None:
    make_folder(path.parent)
    point(path, path.parent)


LATENTS = torch.rand(4, 2, 3, 3)
WRITERS: dict[str, Callable[[Path], None]] = {
    "file": write_all,
    "JSON": lambda path: write_json(path, {}),
    "tensors": lambda path: save_tensors({"a": LATENTS}, path, {"of": "a", "to": "b"}),
    "torch file": lambda path: save_torch_file({"a": LATENTS}, path),
    "shard": lambda path: write_shard(path, LATENTS, LATENTS, torch.zeros(4).long()),
    "link": write_link,
    "folder": make_folder,
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_has_its_name_and_content_for_good(
    disk: Disk, tmp_path: Path, name: str
) -> None:
    """Also in new folders."""
    path = tmp_path / "new" / "folder" / "result"
    WRITERS[name](path)
    assert disk.keeps(path)
    WRITERS[name](path)  # again, in its place
    assert disk.keeps(path)


def test_a_result_has_its_content_before_its_name(disk: Disk, tmp_path: Path) -> None:
    path, named = tmp_path / "result", []

    def at_rename(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.rename" and str(arguments[1]) == str(path):
            named.append(Path(str(arguments[0])).stat().st_ino in disk.content)

    _watching.append(at_rename)
    try:
        for write in (write_all, WRITERS["JSON"], WRITERS["tensors"]):
            write(path)
    finally:
        _watching.remove(at_rename)
    assert named == [True] * 3


def failing_for_folders(number: int) -> Callable[[int], None]:
    fsync = os.fsync

    def sync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    return sync


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP, errno.ENOSYS])
def test_file_systems_that_cannot_sync_folders_are_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", failing_for_folders(number))
    write_all(tmp_path / "new" / "result")
    assert (tmp_path / "new" / "result").read_bytes() == b"all"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fails_while_a_folder_is_synced_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", failing_for_folders(number))
    with pytest.raises(WriteError) as caught:
        write_all(tmp_path / "result")
    assert str(tmp_path / "result") in str(caught.value)


# --- checkpoints ----------------------------------------------------------------------------------


def test_power_that_fails_during_a_training_leaves_the_newest_checkpoint(
    disk: Disk, tmp_path: Path
) -> None:
    """And the lines of the log up to its step."""
    folder, published, moments = tmp_path / "checkpoints", 0, 0

    def look(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal published, moments
        if event not in CHANGES:
            return
        moments += 1
        kept = [path for path in folder.glob("step-????????") if disk.keeps(path)]
        newest = max((int(path.name[5:]) for path in kept), default=0)
        assert newest >= published
        published = newest
        lines = (tmp_path / "metrics.jsonl").read_bytes().count(b"\n") if newest else 0
        assert lines >= newest
        assert not newest or disk.keeps(tmp_path / "metrics.jsonl")

    _watching.append(look)
    try:
        settings = train_settings(6, ema=0.9, checkpoint_every=1)
        train(regression(), settings, 6, train_context(tmp_path))
    finally:
        _watching.remove(look)
    assert published == 6
    assert moments > 60
    assert disk.keeps(tmp_path / "weights.safetensors")


def killed_while(moment: int, act: Callable[[], None]) -> bool:
    """Act in another process, killed before its ``moment``-th change of files; whether it was."""
    process = os.fork()
    if process == 0:
        changes = itertools.count(1)  # also of other threads

        def count(event: str, arguments: tuple[object, ...]) -> None:
            if event in CHANGES and next(changes) == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        _watching.append(count)
        try:
            act()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in {0, -signal.SIGKILL}
    return code != 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("before", ["none", "two", "a damaged one of this step"])
def test_a_kill_while_a_checkpoint_is_written_loses_none(tmp_path: Path, before: str) -> None:
    """At each of its moments, the newest is the one before, or the new one, whole."""
    earlier = {"none": [], "two": [1, 2], "a damaged one of this step": [1, 2, 3]}
    moment, restored = 0, set()
    killed = True
    while killed:
        moment += 1
        folder = tmp_path / str(moment)
        for step in earlier[before]:
            Checkpoints(folder).save(step, trained_state(step))
        if before.startswith("a damaged"):
            (folder / "step-00000003" / "model.safetensors").write_bytes(b"")
        checkpoints, state = Checkpoints(folder), fresh_state()
        resumed = checkpoints.restore(state)

        def save(checkpoints: Checkpoints = checkpoints) -> None:
            checkpoints.save(3, trained_state(3))

        killed = killed_while(moment, save)
        found = fresh_state()
        step = Checkpoints(folder).restore(found)
        assert step in {resumed, 3}
        assert step == 0 or same(found, trained_state(step))
        restored.add(step)
    assert restored == {resumed, 3}
    assert moment > 12


MOMENTS = 80
"""At least the changes of files in the training below."""


@pytest.mark.slow  # and alone: a fork of a process whose threads compute may hang
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("first", [1, 2, 3])
def test_a_training_killed_while_its_checkpoints_are_written_ends_as_undisturbed(
    tmp_path: Path, first: int
) -> None:
    """Whatever the training does meanwhile, at every third moment from ``first`` on."""
    settings = train_settings(6, ema=0.9, checkpoint_every=2)

    def act(folder: Path) -> None:
        train(regression(), settings, 6, train_context(folder))

    act(tmp_path / "whole")
    expected, resumed = load_file(tmp_path / "whole" / "weights.safetensors"), set()
    for moment in range(first, MOMENTS, 3):
        folder = tmp_path / str(moment)
        if not killed_while(moment, partial(act, folder)):
            break
        newest = Checkpoints(folder / "checkpoints").newest()
        resumed.add(newest and newest.name)
        act(folder)
        assert same_tensors(load_file(folder / "weights.safetensors"), expected)
        assert read_metrics(folder) == read_metrics(tmp_path / "whole")
        assert not list(folder.glob("checkpoints/*.new"))
    else:
        raise AssertionError(f"more than {MOMENTS} moments")
    assert resumed == {None, "step-00000002", "step-00000004", "step-00000006"}


def test_a_sound_checkpoint_of_the_same_step_is_kept(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(3, trained_state(3))
    before = {path: path.stat().st_ctime_ns for path in tmp_path.rglob("*")}
    Checkpoints(tmp_path).save(3, trained_state(3))
    assert {path: path.stat().st_ctime_ns for path in tmp_path.rglob("*")} == before


def test_a_damaged_checkpoint_does_not_count_towards_the_two_that_are_kept(tmp_path: Path) -> None:
    """Neither after it nor before it."""
    for step in (1, 2):
        Checkpoints(tmp_path).save(step, trained_state(step))
    (tmp_path / "step-00000002" / "state.json").unlink()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(fresh_state()) == 1
    checkpoints.save(3, trained_state(3))
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000001", "step-00000003"}
