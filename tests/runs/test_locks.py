"""Holding a folder, with the system's locks and on a file system without them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pae_framework.errors import RunError, WriteError
from pae_framework.runs import locks
from pae_framework.runs.locks import has_locks, holding, is_held

NUMBERS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP]


@pytest.fixture(params=[None, *NUMBERS], ids=lambda number: errno.errorcode.get(number, "locks"))
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """A file system with locks, or one that answers each request with this error."""
    if request.param is not None:
        without_locks(monkeypatch, request.param)
    return request.param


@pytest.fixture(params=NUMBERS, ids=errno.errorcode.get)
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks(monkeypatch, request.param)


def without_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


def write_marker(folder: Path, content: Any) -> Path:
    marker = folder / ".lock.json"
    marker.write_text(content if isinstance(content, str) else json.dumps(content))
    return marker


@pytest.mark.usefixtures("file_system")
def test_one_holder_at_a_time_and_none_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with holding(folder):
        assert is_held(folder)
        with pytest.raises(RunError) as caught, holding(folder):
            pass
        assert str(folder) in str(caught.value)
    assert not is_held(folder)
    with holding(folder):
        pass
    assert [path.name for path in folder.iterdir()] in ([".lock"], [])


@pytest.mark.usefixtures("file_system")
def test_an_error_inside_releases_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), holding(tmp_path):
        raise ZeroDivisionError
    assert not is_held(tmp_path)


def test_whether_there_are_locks(tmp_path: Path, file_system: int | None) -> None:
    assert has_locks(tmp_path) == (file_system is None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_locks")
def test_the_marker_of_a_process_that_ended_is_taken_over(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    own = {"host": platform.node(), "started": "1"}
    for process in (ended.pid, os.getpid()):  # the second: its number was given again
        write_marker(tmp_path, {**own, "process": process})
        assert not is_held(tmp_path)
        with holding(tmp_path):
            assert is_held(tmp_path)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize(
    "content",
    [{"host": "another", "process": 1, "started": "1"}, "", "{", "[]", '{"host": 3}'],
    ids=str,
)
def test_a_marker_that_cannot_be_judged_is_believed(tmp_path: Path, content: Any) -> None:
    marker = write_marker(tmp_path, content)
    assert is_held(tmp_path)
    with pytest.raises(RunError) as caught, holding(tmp_path):
        pass
    assert f"delete {marker}" in str(caught.value)
    assert marker.is_file()


@pytest.mark.usefixtures("no_locks")
def test_waiting_for_the_marker_of_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = write_marker(tmp_path, {"host": "another", "process": 1, "started": "1"})
    waited: list[float] = []
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: (waited.append(1), marker.unlink()))
    with holding(tmp_path, waiting=lambda: waited.append(0)):
        assert waited == [0, 1]


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(WriteError, match="file"), holding(tmp_path / "file" / "run"):
        pass
