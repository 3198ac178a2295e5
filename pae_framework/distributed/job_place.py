"""The place of this process among the tasks of a job, from submitit's environment. No torch."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pae_framework.distributed.place import ADDRESS, VARIABLES, Place
from pae_framework.errors import RunError

if TYPE_CHECKING:
    from submitit import JobEnvironment

_FIRST_PORT, _PORTS = 20000, 10000
"""Ports that Linux gives to no outgoing connection."""


def take_place(job: JobEnvironment, restarts: int) -> Place:
    """The place of this task, which is also written into the environment, as torchrun does.

    Args:
        job: the job's environment; each node has as many tasks as the others.
        restarts: how often the job had started before.

    Raises:
        RunError: the tasks of several nodes would not find each other.
    """
    hosts, size = list(job.hostnames), job.num_tasks
    local_size = size // max(1, job.num_nodes)
    place = Place(job.global_rank, size, job.local_rank, local_size)
    if len(hosts) > 1:
        require_address(hosts)
    number = int("".join(filter(str.isdigit, job.raw_job_id)) or 0)
    values = (place.rank, place.size, place.local_rank, place.local_size)
    os.environ.update(zip(VARIABLES, map(str, values), strict=True))
    address = hosts[0] if len(hosts) > 1 else "127.0.0.1"
    os.environ.update(zip(ADDRESS, (address, str(port_of(number, restarts))), strict=True))
    return place


def port_of(job: int, restarts: int) -> int:
    """Where rank 0 listens: jobs on one machine, and starts of one job, differ."""
    return _FIRST_PORT + (7 * job + restarts) % _PORTS


def require_address(hosts: Sequence[str]) -> None:
    """Check that the first node has an address by which the others reach it.

    Raises:
        RunError: it has none, or one that each machine gives itself.
    """
    first = _address(hosts[0])
    if not ipaddress.ip_address(first).is_loopback:
        return
    if any(_address(host) != first for host in hosts):  # else all are one machine
        raise RunError(
            f"the job has {len(hosts)} nodes, but the name of the first, {hosts[0]}, means "
            f"{first} on {socket.gethostname()}, which each machine gives itself; correct "
            "/etc/hosts or the name service of this node"
        )


def _address(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None)[0][4][0])
    except OSError as error:
        raise RunError(
            f"the name of node {host} is not known on {socket.gethostname()}: {error}"
        ) from None
