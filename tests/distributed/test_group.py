"""Processes that see different worlds do not work together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pae_framework.distributed import group
from pae_framework.distributed.group import Seen, contradiction
from pae_framework.distributed.link import Link
from pae_framework.distributed.place import Place

GOOD = [
    Seen(rank, 4, rank % 2, f"node{rank // 2}", f"GPU-{rank % 2}", "2.14", "0.3", None)
    for rank in range(4)
]
"""Two machines with two GPUs each, of the same names."""


def test_processes_that_see_the_same_world_work_together() -> None:
    assert contradiction(GOOD) is None


def test_processes_without_a_gpu_may_share_a_machine() -> None:
    assert contradiction([replace(one, host="node0", device="cpu") for one in GOOD]) is None


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"size": 8}, ("WORLD_SIZE", "4", "8")),
        ({"torch_version": "2.6"}, ("torch", "2.14", "2.6")),
        ({"version": "0.2"}, ("pae-framework", "0.3", "0.2")),
    ],
)
def test_a_difference_names_what_and_who(
    rank: int, changes: dict[str, Any], values: tuple[str, ...]
) -> None:
    seen = [replace(one, **changes) if one.rank == rank else one for one in GOOD]
    problem = contradiction(seen)
    assert problem is not None
    assert all(value in problem for value in (*values, f"rank {rank}", f"node{rank // 2}"))


@pytest.mark.parametrize(("rank", "other"), [(1, 0), (3, 2)])
def test_two_processes_on_one_gpu_are_refused(rank: int, other: int) -> None:
    seen = list(GOOD)
    seen[rank] = replace(seen[rank], device=seen[other].device)
    problem = contradiction(seen)
    assert problem is not None
    assert f"ranks {other} and {rank} on node{rank // 2}" in problem
    assert seen[other].device in problem


def test_slurm_may_not_start_more_tasks_than_the_world_has() -> None:
    problem = contradiction([replace(one, slurm_tasks=8) for one in GOOD])
    assert problem is not None
    assert "8" in problem
    assert "4" in problem
    # One task per machine, each with torchrun: fewer tasks than processes.
    assert contradiction([replace(one, slurm_tasks=2) for one in GOOD]) is None
    assert contradiction([replace(one, slurm_tasks=4) for one in GOOD]) is None


def of_slurm(nodes: int | None = 2) -> list[Seen]:
    """Four tasks on two nodes."""
    return [
        replace(one, slurm_tasks=4, slurm_node=one.rank // 2, slurm_nodes=nodes) for one in GOOD
    ]


@pytest.mark.parametrize("nodes", [2, None])
def test_tasks_of_slurm_are_where_it_started_them(nodes: int | None) -> None:
    assert contradiction(of_slurm(nodes)) is None


def test_a_node_whose_tasks_are_not_among_the_processes_is_noticed() -> None:
    problem = contradiction(of_slurm(nodes=3))
    assert problem is not None
    assert all(value in problem for value in ("3 nodes", "on 2", "node0, node1"))


def test_two_tasks_of_slurm_do_not_have_one_place() -> None:
    seen = [replace(one, local_rank=0) if one.rank == 3 else one for one in of_slurm()]
    problem = contradiction(seen)
    assert problem is not None
    assert all(value in problem for value in ("ranks 2", "and 3", "node 1"))


def test_one_task_per_node_that_starts_several_processes_is_no_contradiction() -> None:
    started = [replace(one, slurm_tasks=2, slurm_nodes=2, slurm_node=None) for one in GOOD]
    assert contradiction(started) is None


def test_a_host_that_others_cannot_reach_by_its_name_is_refused() -> None:
    seen = [replace(one, loopback="127.0.1.1" if one.rank == 2 else None) for one in GOOD]
    problem = contradiction(seen)
    assert problem is not None
    assert all(value in problem for value in ("rank 2", "node1", "127.0.1.1"))
    on_one_machine = [
        replace(one, host="node0", device=f"GPU-{one.rank}", loopback="127.0.1.1") for one in GOOD
    ]
    assert contradiction(on_one_machine) is None


@pytest.mark.parametrize("index", [None, 0, 3])
def test_every_process_chooses_its_gpu_by_number(
    index: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch refuses to choose ``cuda`` without a number, as the first process names its GPU."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(group, "_unique_name", lambda device: "GPU-1")
    monkeypatch.setattr(group.dist, "init_process_group", lambda backend, **options: None)
    world = group.GroupWorld(Place(0, 1, 0, 1), Link(dist.HashStore(), 0, 1))
    world.open(torch.device("cuda") if index is None else torch.device("cuda", index), print)
    assert chosen == [index or 0]
