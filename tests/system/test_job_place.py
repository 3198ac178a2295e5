"""The place of a process among the tasks of a job."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from submitit import JobEnvironment

from pae_framework.distributed.job_place import port_of, require_address, take_place
from pae_framework.distributed.place import Place, place_of_process
from pae_framework.errors import RunError

FOUR_ON_TWO = {
    "SUBMITIT_EXECUTOR": "slurm",
    "SLURM_JOB_ID": "12",
    "SLURM_NTASKS": "4",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_NODEID": "1",
    "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


def names(monkeypatch: pytest.MonkeyPatch, addresses: dict[str, str]) -> None:
    """Let names mean addresses."""

    def resolve(host: str, port: Any) -> Any:
        if host not in addresses:
            raise socket.gaierror("Name or service not known")
        return [(None, None, None, "", (addresses[host], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def environment(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "SUBMITIT_")):
            monkeypatch.delenv(name)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("MASTER_ADDR", "")
    monkeypatch.setenv("MASTER_PORT", "")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_task_of_slurm_has_the_place_that_slurm_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, FOUR_ON_TWO)
    names(monkeypatch, {"node1": "10.0.0.1", "node2": "10.0.0.2"})
    place = take_place(JobEnvironment(), restarts=0)
    assert place == Place(rank=3, size=4, local_rank=1, local_size=2)
    assert place_of_process() == place  # what any launcher would have set
    assert os.environ["MASTER_ADDR"] == "node1"


def test_a_job_of_one_task_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    one = {"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "node7"}
    environment(monkeypatch, FOUR_ON_TWO | alone | one)
    assert take_place(JobEnvironment(), restarts=0) == Place(0, 1, 0, 1)
    assert place_of_process() is None


@given(st.integers(1, 10**9), st.integers(0, 5))
def test_ports_of_jobs_side_by_side_and_of_restarts_differ(job: int, restarts: int) -> None:
    ports = {port_of(number, restarts) for number in range(job, job + 20)}
    assert len(ports) == 20
    assert port_of(job, restarts) != port_of(job, restarts + 1)
    assert all(1024 < port < 32768 for port in ports)


@pytest.mark.parametrize(
    "addresses",
    [
        {"node1": "10.0.0.1", "node2": "10.0.0.2"},
        {"node1": "127.0.0.1", "node2": "127.0.0.1"},  # all nodes are one machine
    ],
)
def test_nodes_that_reach_the_first_are_accepted(
    monkeypatch: pytest.MonkeyPatch, addresses: dict[str, str]
) -> None:
    names(monkeypatch, addresses)
    require_address(["node1", "node2"])


@pytest.mark.parametrize(
    "addresses",
    [
        {"node1": "127.0.1.1", "node2": "10.0.0.2"},
        {"node1": "127.0.0.1", "node2": "127.0.1.1"},
        {"node1": "::1", "node2": "10.0.0.2"},
        {"node2": "10.0.0.2"},
    ],
)
def test_a_first_node_that_others_cannot_reach_is_named(
    monkeypatch: pytest.MonkeyPatch, addresses: dict[str, str]
) -> None:
    names(monkeypatch, addresses)
    with pytest.raises(RunError, match="node1"):
        require_address(["node1", "node2"])
