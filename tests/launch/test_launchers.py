"""Runs whose processes are started by others: torchrun on one and two nodes, and Slurm."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty_processes import HOST, Fault, FaultyRun

from pae_framework.testing.pytest import Result

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
BY_SLURM = (
    "export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID "
    'LOCAL_WORLD_SIZE=2; exec "$@"'
)


Launch = Callable[..., Result]


def own_errors(result: Result) -> list[str]:
    """The lines that ``pae`` printed as errors, in any process."""
    return [line for line in result.err.splitlines() if line.startswith("error:")]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def on_one_node(run: FaultyRun, *more: str) -> Result:
    words = run.words(*more, processes=None)
    return run.finish(run.start("--standalone", *words, program=TORCHRUN))


def on_two_nodes(run: FaultyRun, *more: str) -> Result:
    """Two torchruns, as on two machines; with the output of both."""
    meeting = f"127.0.0.1:{free_port()}"
    options = ("--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", meeting)
    words = (*options, *run.words(*more, processes=None))
    first, second = (run.start(*words, program=TORCHRUN) for _ in range(2))
    results = [run.finish(first), run.finish(second)]
    code = max(result.code for result in results)
    out, err = "".join(one.out for one in results), "".join(one.err for one in results)
    return Result(code, out, err)


def by_srun(run: FaultyRun, *more: str) -> Result:
    if shutil.which("srun") is None or "SLURM_CONF" not in os.environ:
        pytest.skip("no Slurm: srun is not installed or SLURM_CONF is not set")
    run.variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    srun = ("srun", "--nodes=2", "--ntasks=4", "--ntasks-per-node=2", "--overcommit")
    words = ("bash", "-c", BY_SLURM, "-", sys.executable, *run.words(*more, processes=None))
    return run.finish(run.start(*words, program=srun))


LAUNCHERS = [
    pytest.param(on_one_node, 2, marks=pytest.mark.slow, id="torchrun"),
    pytest.param(on_two_nodes, 4, marks=pytest.mark.slow, id="two torchruns"),
    pytest.param(by_srun, 4, marks=pytest.mark.slurm, id="srun"),
]
FAULTS = {
    "error": (Fault("raise PaeError('mine')"), "mine"),
    "killed": (Fault("os.kill(os.getpid(), 9)"), "does not answer"),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize(("launch", "size"), LAUNCHERS)
def test_the_failure_of_one_process_ends_all(
    launch: Launch, size: int, name: str, tmp_path: Path
) -> None:
    fault, text = FAULTS[name]
    run = FaultyRun(tmp_path, fault)
    result = launch(run)
    assert result.code != 0
    assert f"{size} processes on {HOST}" in result.err
    (error,) = own_errors(result)
    assert f"rank 1 on {HOST}" in error
    assert text in error
    assert run.record()["state"] == "failed"
    run.require_no_processes(seconds=30)


@pytest.mark.parametrize(("launch", "size"), LAUNCHERS)
def test_an_error_before_the_first_stage_is_shown_once(
    launch: Launch, size: int, tmp_path: Path
) -> None:
    run = FaultyRun(tmp_path, Fault())
    result = launch(run, "extractor.widht=9")
    assert result.code != 0
    assert len(own_errors(result)) == 1
    run.require_no_processes(seconds=10)


@pytest.mark.parametrize(("launch", "size"), LAUNCHERS)
def test_one_process_prints_and_all_finish(launch: Launch, size: int, tmp_path: Path) -> None:
    run = FaultyRun(tmp_path, Fault())
    result = launch(run)
    assert result.code == 0, result.err
    assert result.err.count("extractor  starts") == 1
    assert result.out.count("report:") == 1
    assert own_errors(result) == []
    logs = sorted(path.name for path in run.log(0).parent.iterdir())
    assert logs == [f"rank{rank}.log" for rank in range(size)]
    assert launch(run).code == 0  # all is done: nothing starts


@pytest.mark.parametrize(("launch", "size"), LAUNCHERS)
def test_a_signal_to_one_process_stops_all(launch: Launch, size: int, tmp_path: Path) -> None:
    run = FaultyRun(tmp_path, Fault("os.kill(os.getpid(), signal.SIGUSR1)", ranks=(size - 1,)))
    result = launch(run)
    assert result.code != 0
    (error,) = own_errors(result)
    assert "stopped at step" in error
    assert run.record()["state"] == "stopped"


@pytest.mark.parametrize(("launch", "size"), LAUNCHERS)
def test_a_dry_run_is_printed_once(launch: Launch, size: int, tmp_path: Path) -> None:
    result = launch(FaultyRun(tmp_path, Fault()), "--dry-run")
    assert result.code == 0, result.err
    assert result.out.count("FLOPs: one multiply-add is two") == 1
