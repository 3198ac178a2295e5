"""Reading steps in worker processes: errors are those of the main process."""

from __future__ import annotations

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
from PIL import Image

from pae_framework.contracts import DataSource
from pae_framework.data.damaged import SkippingSource
from pae_framework.data.images import ImageBatches
from pae_framework.data.read_ahead import read_steps
from pae_framework.data.stream import CountStream
from pae_framework.errors import DataError, PaeError
from pae_framework.plugins import load_registry
from pae_framework.stopping import STOP_SIGNALS


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
    assert re.search(r"\b2 .*data\.max_damaged is 1\b", one_line(caught.value))


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
