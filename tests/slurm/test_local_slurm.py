"""What the other tests of this folder assume of their Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest
from local_slurm import LocalSlurm

pytestmark = pytest.mark.slurm


def test_both_nodes_work_and_one_partition_is_closed(slurm: LocalSlurm) -> None:
    words = ("sinfo", "--Node", "--noheader", "--partition")
    assert slurm.output(*words, "debug", "--format=%N").split() == ["node1", "node2"]
    assert set(slurm.output(*words, "debug", "--format=%a").split()) == {"up"}
    assert set(slurm.output(*words, "closed", "--format=%a").split()) == {"down"}


def test_a_job_sees_the_gpus_that_it_asks_for(slurm: LocalSlurm) -> None:
    show = ("bash", "-c", "echo $SLURMD_NODENAME ${CUDA_VISIBLE_DEVICES-none}")
    both = slurm.output("srun", "-N2", "--gres=gpu:2", *show)
    assert sorted(both.splitlines()) == ["node1 0,1", "node2 0,1"]
    assert slurm.output("srun", "-N1", "--gres=gpu:1", *show).split()[1] in "01"
    assert slurm.output("srun", "-N1", *show).split()[1] == "none"


def test_four_ranks_run_on_two_nodes(slurm: LocalSlurm) -> None:
    show = "echo $SLURM_PROCID $SLURM_LOCALID $SLURM_NTASKS $SLURMD_NODENAME"
    lines = slurm.output("srun", "-N2", "-n4", "--overcommit", "bash", "-c", show).splitlines()
    assert sorted(lines) == ["0 0 4 node1", "1 1 4 node1", "2 0 4 node2", "3 1 4 node2"]


def test_the_name_of_a_node_leads_to_it(slurm: LocalSlurm) -> None:
    command = 'getent hosts $(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
    assert slurm.output("srun", "-N2", "-n1", "bash", "-c", command).split()[:2] == [
        "127.0.0.1",
        "node1",
    ]


def test_accounting_knows_finished_jobs(slurm: LocalSlurm, tmp_path: Path) -> None:
    job = slurm.submit(tmp_path, "exit 3")

    def account() -> str:
        return slurm.output("sacct", "-nXP", "-j", job, "--format=State,ExitCode")

    slurm.until(lambda: account() == "FAILED|3:0", account)


def test_a_requeued_job_starts_again_under_its_id(slurm: LocalSlurm, tmp_path: Path) -> None:
    job = slurm.submit(tmp_path, "echo start ${SLURM_RESTART_COUNT-0}; sleep 300")
    log = tmp_path / "log"
    slurm.until(lambda: log.exists() and log.read_text() == "start 0\n")

    slurm.output("scontrol", "requeue", job)
    slurm.go_on(job)

    slurm.until(lambda: log.read_text().endswith("start 1\n"))
    assert slurm.field(job, "Restarts") == "1"
