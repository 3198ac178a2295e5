"""Whatever ends one of several processes: all end, and the first real reason is shown."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from faulty_processes import HOST, Fault, FaultyRun

SLOW = pytest.mark.slow
NO_ROOM = """\
from pae_framework.errors import WriteError
from pae_framework.training import checkpoint

def fail(tensors, path):
    raise WriteError("the disk is full")

checkpoint.save_tensors = fail
"""
FAULTS = {
    "killed": (
        Fault("os.kill(os.getpid(), 9)"),
        1,
        ["signal 9", "memory", "set --processes lower"],
    ),
    "RuntimeError": (Fault("raise RuntimeError('odd')"), 3, ["RuntimeError: odd", "faulty"]),
    "ended": (Fault("os._exit(7)"), 1, ["exit code 7"]),
    "segmentation fault": (Fault("os.kill(os.getpid(), 11)"), 1, ["signal 11"]),
    "PaeError": (Fault("raise PaeError('mine')"), 1, ["mine"]),
    "usage": (Fault("raise DataError('no file')"), 2, ["no file"]),
    "MemoryError": (Fault("raise MemoryError"), 3, ["MemoryError"]),
    "SystemExit": (Fault("sys.exit(0)"), 3, ["SystemExit"]),
    "OSError": (Fault("open('/nowhere/file')"), 3, ["/nowhere/file"]),
    "main, RuntimeError": (Fault("raise RuntimeError('odd')", (0,)), 3, ["RuntimeError: odd"]),
    "main, SystemExit": (Fault("sys.exit(0)", (0,)), 3, ["SystemExit"]),
    "import": (
        Fault(on_import="if os.environ.get('RANK') == '1': raise ImportError('lost file')"),
        3,
        ["lost file"],
    ),
    "main, disk full": (Fault(ranks=(0,), on_import=NO_ROOM), 1, ["disk is full", "no checkpoint"]),
}
QUICK = ("killed",)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else SLOW) for name in FAULTS]
)
def test_what_ends_one_process_ends_all_and_is_shown(name: str, tmp_path: Path) -> None:
    fault, code, texts = FAULTS[name]
    rank = fault.ranks[0]
    run = FaultyRun(tmp_path, fault)
    result = run.pae().fails(code)
    errors = [line for line in result.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    for text in (f"rank {rank} on {HOST}", str(run.log(rank)), *texts):
        assert text in errors[0]
    assert "gloo" not in errors[0]
    record = run.record()
    assert record["state"] == "failed"
    assert f"rank {rank} on {HOST}" in record["error"]
    run.require_no_processes(seconds=1)


def test_killing_the_main_process_ends_all(tmp_path: Path) -> None:
    # Its loader's workers outlive it a little.
    run = FaultyRun(tmp_path, Fault("Path('reads').touch(); time.sleep(1)"))
    process = run.start(*run.words("extractor.train.workers=1"))
    run.wait_for("reads")
    process.send_signal(signal.SIGKILL)
    run.finish(process)
    run.require_no_processes(seconds=10)


@pytest.mark.slow
def test_a_process_that_rests_is_waited_for(tmp_path: Path) -> None:
    rest = "import subprocess; me = str(os.getpid()); "
    rest += "subprocess.Popen(['sh', '-c', f'sleep 3; kill -CONT {me}']); os.kill(int(me), 19)"
    FaultyRun(tmp_path, Fault(rest)).pae().ok()


@pytest.mark.slow
def test_a_failed_member_of_a_sweep_leaves_the_others_their_processes(tmp_path: Path) -> None:
    fault = Fault("if self.config.mask_threshold == 0.3: raise RunError('this member')")
    sweep = {"variants": {"bad": {"data.train.mask_threshold": 0.3}, "good": {}}, "seeds": [0]}
    run = FaultyRun(tmp_path, fault, {"sweep": sweep})
    result = run.pae().fails(1)
    assert "this member" in result.err
    assert "bad" in result.err
    assert "good" not in result.err
    assert (run.run_dir / "members" / "good-seed0" / "report.html").exists()
    run.require_no_processes(seconds=1)
