"""Run a function in several real processes, connected over gloo."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from pae_framework.distributed.failure import Failure
from pae_framework.distributed.group import GroupWorld
from pae_framework.distributed.link import Link, own_store
from pae_framework.distributed.place import Place
from pae_framework.world import World

SECONDS = 50


def in_processes(size: int, work: Callable[[World], Any]) -> list[Any]:
    """What ``work(world)`` returns in each process, by rank; it must pickle.

    Raises:
        AssertionError: it raised in one of them; has the traceback of the first.
    """
    store = own_store()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "pae_framework.training.loop"])
    with ProcessPoolExecutor(size, mp_context=context) as pool:
        futures = [pool.submit(_run, rank, size, store.port, work) for rank in range(size)]
        results = [future.result(SECONDS) for future in futures]
    problem = Link(store, 0, size).failure()
    assert problem is None, problem.message
    return results


def _run(rank: int, size: int, port: int, work: Callable[[World], Any]) -> Any:
    torch.set_num_threads(1)
    store = torch.distributed.TCPStore("127.0.0.1", port, is_master=False)
    world = GroupWorld(Place(rank, size, rank, size), Link(store, rank, size))
    try:
        world.open(torch.device("cpu"), lambda line: None)
        return work(world)
    except Exception as error:
        reason = "".join(traceback.format_exception(error))
        world.link.fail(Failure(rank, "here", reason))
        return None
    finally:
        world.close()
