"""A request to stop, in any of several processes, stops all of them after the same step."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faulty_processes import LIMIT, Fault, FaultyRun

SLOW = pytest.mark.slow
SLEEPS = Fault("Path('reads').touch(); time.sleep(3)")
"""In the middle of a step, which the other process waits for."""
SAVES_SLOWLY = """\
from pae_framework.training.checkpoint import Checkpoints
save = Checkpoints.save

def save_slowly(*arguments):
    import pathlib, time
    pathlib.Path("saves").touch()
    time.sleep(1.5)
    save(*arguments)

Checkpoints.save = save_slowly
"""


def step(text: str) -> int:
    """The step at which a process says that it stopped."""
    (found,) = re.findall(r"stopped at step (\d+) of 12", text)
    return int(found)


@pytest.mark.parametrize(
    ("name", "who", "code"),
    [
        ("TERM", "rank 0", 143),
        pytest.param("TERM", "rank 1", 75, marks=SLOW),
        pytest.param("HUP", "rank 0", 129, marks=SLOW),
        pytest.param("USR1", "rank 1", 75, marks=SLOW),
        pytest.param("USR2", "all", 75, marks=SLOW),
        pytest.param("INT", "all", 130, marks=SLOW),
    ],
)
def test_one_signalled_process_stops_all_at_the_same_step(
    name: str, who: str, code: int, tmp_path: Path
) -> None:
    run = FaultyRun(tmp_path, SLEEPS)
    process = run.start(*run.words())
    run.wait_for("reads")
    number = signal.Signals[f"SIG{name}"]
    if who == "all":
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid if who == "rank 0" else run.rank(1), number)
    result = run.finish(process).fails(code)
    assert "error:" not in result.err
    assert result.err.count("stopping after") == (who != "rank 1")
    assert "to resume: pae run" in result.err
    assert step(result.err) == step(run.log(1).read_text())
    record = run.record()
    assert record["state"] == "stopped"
    assert record["progress"] == {"done": step(result.err), "total": 12}
    run.require_no_processes(seconds=1)


@pytest.mark.slow
def test_signals_during_a_save_are_one_request(tmp_path: Path) -> None:
    run = FaultyRun(tmp_path, Fault(on_import=SAVES_SLOWLY))
    process = run.start(*run.words("extractor.train.workers=1"))
    run.wait_for("saves")
    for _ in range(3):
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.4)
    result = run.finish(process).fails(143)
    assert step(result.err) in range(4, 9)  # that of step 8 waits for the save of step 4
    assert run.record()["state"] == "stopped"
    (folder,) = run.run_dir.glob("stages/extractor-*/checkpoints")
    assert f"step-{step(result.err):08d}" in [path.name for path in folder.iterdir()]
    run.require_no_processes(seconds=10)


@pytest.mark.slow
@pytest.mark.parametrize(("times", "code"), [(1, 130), (2, 130)])
def test_ctrl_c_on_a_terminal(times: int, code: int, tmp_path: Path) -> None:
    run = FaultyRun(tmp_path, SLEEPS)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", sys.executable, *run.words()],
        cwd=tmp_path,
        env=run.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    run.wait_for("reads")
    for _ in range(times):
        os.write(ours, b"\x03")
        time.sleep(0.5)
    shown = read_terminal(ours)
    assert process.wait(LIMIT) == code
    assert run.record()["state"] == "stopped"
    assert "Traceback" not in shown
    if times == 1:
        assert step(shown) == step(run.log(1).read_text())
    run.require_no_processes(seconds=10)


@pytest.mark.slow
def test_an_interrupted_process_interrupts_all(tmp_path: Path) -> None:
    run = FaultyRun(tmp_path, Fault("raise KeyboardInterrupt"))
    run.pae().fails(130)
    assert run.record()["state"] == "stopped"
    run.require_no_processes(seconds=1)


def read_terminal(descriptor: int) -> str:
    """What a terminal shows until its last process has ended."""
    shown = b""
    while select.select([descriptor], [], [], LIMIT)[0]:
        try:
            shown += os.read(descriptor, 1 << 16)
        except OSError:  # nobody has it open
            break
    return shown.decode(errors="replace")


@pytest.mark.slow
def test_a_signal_before_the_first_step_leaves_nothing(tmp_path: Path) -> None:
    run = FaultyRun(tmp_path, Fault(on_import="open('starts', 'w').close()"))
    process = run.start(*run.words())
    run.wait_for("starts")
    process.send_signal(signal.SIGTERM)
    assert run.finish(process).code != 0
    run.require_no_processes(seconds=10)
    run.pae().ok()
