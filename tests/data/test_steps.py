"""Reading steps in worker processes: errors are those of the main process; scarce machines."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pae_framework.contracts import DataSource
from pae_framework.data import read_ahead
from pae_framework.data.damaged import SkippingSource
from pae_framework.data.images import ImageBatches
from pae_framework.data.read_ahead import read_steps, worker_death
from pae_framework.data.stream import CountStream
from pae_framework.errors import DataError, PaeError
from pae_framework.plugins import load_registry
from pae_framework.system.stopping import STOP_SIGNALS


@pytest.fixture
def source(tmp_path: Path) -> DataSource:
    """Eight images of one class, of which the third and the sixth are damaged."""
    folder = tmp_path / "images" / "only"
    folder.mkdir(parents=True)
    for place in range(8):
        Image.fromarray(np.full((8, 8, 3), 10 * place, np.uint8)).save(folder / f"{place}.png")
    for place in (2, 5):
        (folder / f"{place}.png").write_bytes(b"no image")
    spec = load_registry().find("dataset", "image_folder")
    return spec.component_class()(spec.config_class()(folder=str(folder.parent)), 8)


def in_order(source: DataSource) -> ImageBatches:
    stream = CountStream(len(source), batch_size=2, seed=0, shuffle=False)
    return ImageBatches(source, stream, flip=False, workers=2)


def one_line(error: PaeError) -> str:
    """The message, which must not contain the traceback that torch adds."""
    (line,) = str(error).splitlines()
    assert "worker" not in line
    return line


def test_an_unreadable_image_in_a_worker_is_a_one_line_error(source: DataSource) -> None:
    batches = in_order(source)(0, 4)
    images, _ = next(batches)
    assert (images[:, 0, 0, 0] * 255).round().tolist() == [0, 10]
    with pytest.raises(DataError) as caught:
        next(batches)
    assert "2.png" in one_line(caught.value)


def test_exceeding_the_limit_of_damaged_images_in_a_worker_is_a_one_line_error(
    source: DataSource, tmp_path: Path
) -> None:
    batches = in_order(SkippingSource(source, tmp_path / "damaged.txt", limit=1))
    with pytest.raises(DataError) as caught:
        list(batches(0, 4))
    assert re.search(r"\b2,.*data\.max_damaged is 1\b", one_line(caught.value))


def _divide(step: int) -> float:
    return 1 / step


def test_other_errors_of_a_worker_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError, match=r"(?s)in DataLoader worker.*in _divide"):
        list(read_steps(_divide, 0, 2, workers=1))


def _slowly(step: int) -> int:
    time.sleep(0.05)
    return step


@pytest.mark.parametrize("sent", STOP_SIGNALS, ids=lambda sent: sent.name)
def test_workers_ignore_the_signals_that_ask_to_stop(sent: signal.Signals) -> None:
    """Slurm and terminals send them to every process."""
    steps = read_steps(_slowly, 0, 12, workers=2)
    assert next(steps) == 0
    workers = active_children()
    assert len(workers) == 2
    for worker in workers:
        assert worker.pid is not None
        os.kill(worker.pid, sent)
    assert list(steps) == list(range(1, 12))
    assert not any(worker.is_alive() for worker in workers)


def test_workers_end_when_their_steps_are_no_longer_read() -> None:
    steps = read_steps(_slowly, 0, 1000, workers=2)
    assert next(steps) == 0
    workers = active_children()
    del steps
    assert not any(worker.is_alive() for worker in workers)


def _hang(folder: Path, step: int) -> int:
    (folder / str(os.getpid())).touch()
    if step:
        time.sleep(1000)
    return step


HANGING = """\
import sys
import time
from functools import partial
from pathlib import Path
from test_steps import _hang
from pae_framework.data.read_ahead import read_steps

folder = Path(sys.argv[1])
steps = read_steps(partial(_hang, folder), 0, 9, workers=2)
next(steps)
while len(list(folder.iterdir())) < 2:
    time.sleep(0.01)
try:
    raise KeyboardInterrupt
except KeyboardInterrupt as error:
    kept = error  # a circle: error, its traceback, this frame with the steps
"""


@pytest.mark.slow
def test_a_process_ends_in_spite_of_workers_that_hang(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
    subprocess.run([sys.executable, "-c", HANGING, tmp_path], env=env, timeout=60, check=True)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def _tensors(step: int) -> tuple[torch.Tensor, ...]:
    """Tensors of several types and shapes, none of which is all zero."""
    return (
        torch.arange(12).view(3, 4) + step,
        torch.full((2, 3, 4, 4), step + 1, dtype=torch.uint8),
        torch.tensor(0.5 + step, dtype=torch.bfloat16),
        torch.ones(2, dtype=torch.bool),
        torch.empty(0, 3),
        torch.arange(6.0).view(2, 3).t() + step,
    )


def _refuse(*arguments: object) -> None:
    raise RuntimeError("unable to allocate shared memory(shm) for file: No space left on device")


def _refuse_locks(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("lack", ["nothing", "shared memory", "temporary folder", "locks"])
def test_batches_are_the_same_however_they_are_sent(
    lack: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if lack == "shared memory":
        monkeypatch.setattr(torch.Tensor, "share_memory_", _refuse)
    if lack == "temporary folder":
        monkeypatch.setattr(read_ahead, "arbitrary_address", lambda family: "/tmp/" + 120 * "x")
    if lack == "locks":
        monkeypatch.setattr(read_ahead.multiprocessing, "Lock", _refuse_locks)
    batches = list(read_steps(_tensors, 3, 8, workers=2))
    for step, batch in zip(range(3, 8), batches, strict=True):
        for tensor, expected in zip(batch, _tensors(step), strict=True):
            assert tensor.dtype == expected.dtype
            assert torch.equal(tensor, expected)
    assert len(caplog.messages) == (lack != "nothing")  # said once


def _die(step: int) -> int:
    if step == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return step


def test_a_worker_that_is_killed_is_recognized() -> None:
    with pytest.raises(RuntimeError) as caught:
        list(read_steps(_die, 0, 3, workers=1))
    # torch learns of it by a signal or by asking
    assert re.search(
        r"process \d+\) (was killed by|exited unexpectedly)", str(worker_death(caught.value))
    )


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("DataLoader worker")])
def test_other_errors_are_no_death_of_a_worker(error: Exception) -> None:
    assert worker_death(error) is None


@pytest.mark.slow
@pytest.mark.parametrize("size", ["4k", "1m"])
def test_small_shared_memory_does_not_stop_a_process(tmp_path: Path, size: str) -> None:
    """Batches of 4 MB, in a namespace with as little shared memory as some containers have."""
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\n"
        "from pae_framework.data.read_ahead import read_steps\n"
        "def read(step): return (torch.full((4 << 20,), step, dtype=torch.uint8),)\n"
        "for step, (batch,) in enumerate(read_steps(read, 0, 6, 2)):\n"
        "    assert (batch == step).all()\n",
        encoding="utf-8",
    )
    mount = f"mount -t tmpfs -o size={size} tmpfs /dev/shm"
    allowed = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False)
    if allowed.returncode:
        pytest.skip(f"cannot mount: {allowed.stderr.decode()}")
    command = f"{mount} && exec {sys.executable} {script}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
