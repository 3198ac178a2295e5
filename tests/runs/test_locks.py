"""Holding a folder, with the system's locks and on a file system without them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pae_framework.errors import RunError, WriteError
from pae_framework.runs import markers
from pae_framework.runs.holder import Holder
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
        for fact in (folder, os.getpid(), platform.node()):
            assert str(fact) in str(caught.value)
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
    [
        {"host": "another", "process": 1, "started": "1"},  # of a version that does not renew it
        *("", "{", "[]", '{"host": 3}', "[" * 100_000, '{"process": 1e99}'),
    ],
    ids=lambda content: str(content)[:20],
)
def test_a_marker_that_cannot_be_judged_is_believed(tmp_path: Path, content: Any) -> None:
    marker = write_marker(tmp_path, content)
    assert is_held(tmp_path)
    with pytest.raises(RunError) as caught, holding(tmp_path):
        pass
    assert f"delete {marker}" in str(caught.value)
    assert marker.is_file()


# --- another machine ------------------------------------------------------------------------------

ELSEWHERE = Holder("another-machine", 4321, "77", "pae run quickstart", renewed=True)
NAMES = ("another-machine", "4321", "pae run quickstart")
Tick = Callable[[float], None]


class Clock:
    """Time as the process sees it; what happens elsewhere while it sleeps is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 0.0
        self.elsewhere: Tick = lambda now: None
        monkeypatch.setattr(markers.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(markers.time, "sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < 10_000, "it waits for ever"
        self.elsewhere(self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    without_locks(monkeypatch, errno.ENOLCK)
    return Clock(monkeypatch)


def renewing(marker: Path, until: float = float("inf"), shift: float = 0.0) -> Tick:
    """A holder that touches its marker every 10 s, by a clock that differs by ``shift`` seconds."""

    def tick(now: float) -> None:
        if now <= until and now % 10 == 0:
            os.utime(marker, (now + shift, now + shift))

    return tick


SHIFTS = [0.0, 1e6, 3e9]
"""How much later the clock of the other machine is."""


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_marker_that_is_renewed_is_respected(tmp_path: Path, clock: Clock, shift: float) -> None:
    marker = write_marker(tmp_path, ELSEWHERE.text())
    clock.elsewhere = renewing(marker, shift=shift)
    with pytest.raises(RunError) as caught, holding(tmp_path):
        pass
    assert all(fact in str(caught.value) for fact in (*NAMES, str(tmp_path), str(marker)))
    assert clock.now <= markers.RENEW_SECONDS
    assert marker.is_file()


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("shift", SHIFTS)
def test_a_marker_that_is_not_renewed_any_more_is_taken_over(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, shift: float, wait: bool
) -> None:
    marker, waited = write_marker(tmp_path, ELSEWHERE.text()), []
    os.utime(marker, (shift, shift))
    clock.elsewhere = renewing(marker, until=500 if wait else 0, shift=shift)
    with holding(tmp_path, waited.append if wait else None):
        assert json.loads(marker.read_text())["process"] == os.getpid()
        assert clock.now == pytest.approx((500 if wait else 0) + markers.SILENT_SECONDS, abs=2)
    assert not marker.exists()
    assert len(waited) == wait  # said once
    said = " ".join((*waited, *caplog.messages))
    assert all(fact in said for fact in NAMES)


def test_waiting_ends_with_the_marker(tmp_path: Path, clock: Clock) -> None:
    marker, waited = write_marker(tmp_path, ELSEWHERE.text()), []
    clock.elsewhere = lambda now: marker.unlink() if now == 30 else renewing(marker)(now)
    with holding(tmp_path, waited.append):
        assert clock.now == 30
    assert waited == [str(ELSEWHERE)]


def test_a_marker_of_another_process_is_not_removed(tmp_path: Path, clock: Clock) -> None:
    """A third process took it over in the meantime, and renews it."""
    marker = write_marker(tmp_path, ELSEWHERE.text())
    third = Holder("third-machine", 5, "1", renewed=True)

    def elsewhere(now: float) -> None:
        if now == 100:
            marker.write_text(third.text())
        if now >= 100:
            renewing(marker)(now)

    clock.elsewhere = elsewhere
    with pytest.raises(RunError) as caught, holding(tmp_path):
        pass
    assert "third-machine" in str(caught.value)
    assert marker.read_text() == third.text()


HOLD = """
import errno, fcntl, sys, time
from pathlib import Path
from pae_framework.runs import markers
from pae_framework.runs.locks import holding

def refuse(descriptor, operation):
    raise OSError(errno.ENOLCK, "no locks")

fcntl.flock = refuse
markers.RENEW_SECONDS = 0.05
with holding(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_holder_renews_its_marker_and_ends_if_it_lost_it(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    marker = tmp_path / ".lock.json"
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as held:
        assert held.stdout
        assert held.stdout.readline() == "held\n"
        for _ in range(2):
            time_then = marker.stat().st_mtime_ns
            wait_until(lambda then=time_then: marker.stat().st_mtime_ns != then)
        marker.unlink()  # by someone who believed that the process had ended
        wait_until(marker.exists)
        marker.write_text(ELSEWHERE.text())
        _, said = held.communicate(timeout=20)
    assert held.returncode == 1
    assert "another-machine" in said
    assert marker.read_text() == ELSEWHERE.text()


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


# --- two processes --------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_lock_ends_with_its_process(tmp_path: Path, end: str) -> None:
    """While it lives, it is named with its command; what a killed one left does no harm."""
    words = [sys.executable, "-c", HOLD.replace("fcntl.flock = refuse", ""), str(tmp_path), "words"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as held:
        assert held.stdout
        held.stdout.readline()
        assert is_held(tmp_path)
        with pytest.raises(RunError) as caught, holding(tmp_path):
            pass
        assert f"process {held.pid} of {platform.node()}" in str(caught.value)
        assert "words" in str(caught.value)
        held.terminate() if end == "stop" else held.kill()
        waited: list[str] = []
        with holding(tmp_path, waited.append):
            pass
    assert not is_held(tmp_path)


HOLD_AND_FORK = """
import os, signal, sys, time
from pathlib import Path
from pae_framework.runs.locks import holding, is_held

reading, writing = os.pipe()
with holding(Path(sys.argv[1])):
    if os.fork() == 0:
        assert is_held(Path(sys.argv[1]))
        os.write(writing, b"ready")
        time.sleep(60)
    os.read(reading, 5)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_lock_is_not_held_by_workers_that_outlive_their_process(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLD_AND_FORK, str(tmp_path)]
    with subprocess.Popen(words, start_new_session=True) as held:
        held.wait()
        try:
            os.killpg(held.pid, 0)  # the worker lives
            assert not is_held(tmp_path)
        finally:
            os.killpg(held.pid, signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_does_not_release_the_lock(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(holding(tmp_path))
        if (worker := os.fork()) == 0:
            try:
                stack.close()
            finally:
                os._exit(0)
        os.waitpid(worker, 0)
        assert is_held(tmp_path)
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()


def test_a_look_leaves_no_file(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(WriteError, match="file"), holding(tmp_path / "file" / "run"):
        pass
