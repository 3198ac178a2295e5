"""The world of several processes: torch's process group and messages through a store."""

from __future__ import annotations

import os
import platform
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pae_framework import __version__
from pae_framework.distributed.blame import seen_key
from pae_framework.distributed.link import Link
from pae_framework.distributed.place import Place
from pae_framework.errors import RunError
from pae_framework.world import SharedItems, World

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""Longest time that a process may wait in a collective: for the slowest process' step."""
INTERFACE = "GLOO_SOCKET_IFNAME"
"""Names the network interface that gloo uses; otherwise it is that of the host name's address."""


class GroupWorld(World):
    """This process among several. :meth:`open` connects them; :meth:`close` ends that.

    Args:
        place: of this process.
        link: messages between the processes.

    Attributes:
        works_alone: whether this process does work that a failure of others must not end.
    """

    def __init__(self, place: Place, link: Link):
        self.rank, self.size = place.rank, place.size
        self.local_rank, self.local_size = place.local_rank, place.local_size
        self.link = link
        self._calls: Counter[str] = Counter()
        self._is_aborted = False
        self._is_on_gpu = False
        self.works_alone = False

    def open(self, device: torch.device, tell: Callable[[str], None]) -> None:
        """Make torch's process group, after a check that every process is where it should be.

        Args:
            device: of this process; tensors on it and on the CPU can be reduced.
            tell: called with a line about processes that do not come.

        Raises:
            RunError: the processes see different worlds, versions or share a GPU.
        """
        on_one_machine = self._meet(device, tell)
        self._is_on_gpu = device.type == "cuda"
        if self._is_on_gpu:
            torch.cuda.set_device(device.index or 0)  # without an index, torch refuses
        backend = "cpu:gloo,cuda:nccl" if self._is_on_gpu else "gloo"
        with _loopback() if on_one_machine else nullcontext():
            dist.init_process_group(
                backend,
                store=dist.PrefixStore("group", self.link.second_client()),
                rank=self.rank,
                world_size=self.size,
                timeout=TIMEOUT,
            )

    def _meet(self, device: torch.device, tell: Callable[[str], None]) -> bool:
        """Wait until all processes are here; returns whether they are on one machine."""
        self.link.post(seen_key(self.rank), Seen.here(self, device))
        if not self.is_main:
            return bool(self.link.wait("on one machine"))
        missing = set(range(self.size))

        def all_here() -> bool:
            missing.difference_update([rank for rank in missing if self.link.has(seen_key(rank))])
            return not missing

        self.link.wait_until(all_here, lambda: f"{_ranks(sorted(missing))} of {self.size}")
        seen = [self.link.read(seen_key(rank)) for rank in range(self.size)]
        if problem := contradiction(seen):
            raise RunError(problem)
        hosts = list(dict.fromkeys(one.host for one in seen))
        self.link.post("on one machine", len(hosts) == 1)
        machines = f"{len(hosts)} machines ({', '.join(hosts)})" if hosts[1:] else hosts[0]
        tell(f"{self.size} processes on {machines}")
        return len(hosts) == 1

    def close(self, failed: bool = False) -> None:
        """Leave the process group. NCCL would wait for the others, which may have ``failed``."""
        if failed and self._is_on_gpu:
            self.abort()
        elif dist.is_initialized():
            dist.destroy_process_group()

    def abort(self) -> bool:
        """Let whoever waits in a collective get an error; False if it was done already."""
        if self._is_aborted or not dist.is_initialized():
            return False
        self._is_aborted = True
        dist.distributed_c10d._abort_process_group()  # NCCL has no public name for it
        return True

    def sum(self, values: Tensor) -> Tensor:
        """The element-wise sum over all processes."""
        values = values.detach().clone()
        dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return bool(self.sum(torch.tensor(float(flag))).item())

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors with those of the main process."""
        for tensor in tensors:
            dist.broadcast(tensor, src=0)

    def scatter(self, values: Sequence[Tensor]) -> Tensor | None:
        """This process' value, by rank, of those that the main process gives."""
        given: list[Tensor | None] = [None] * self.size
        if self.is_main:  # a view would be sent with all of its storage
            given[: len(values)] = [value.cpu().clone() for value in values]
        own: list[Tensor | None] = [None]
        dist.scatter_object_list(own, given, src=0)
        return own[0]

    def gather(self, values: Sequence[Tensor]) -> list[list[Tensor]]:
        """Each process' tensors, by rank, in the main process."""
        gathered: list[list[Tensor]] = [[] for _ in range(self.size)]
        own = [value.cpu() for value in values]
        dist.gather_object(own, gathered if self.is_main else None, dst=0)
        return gathered

    @contextmanager
    def working_alone(self) -> Iterator[None]:
        """See :attr:`works_alone`."""
        self.works_alone = True
        try:
            yield
        finally:
            self.works_alone = False

    def on_main(self, work: Callable[[], T]) -> T:
        """The result of ``work()``, which only the main process calls."""
        key = self._key("main")
        if not self.is_main:
            result: T = self.link.wait(key, "the work of rank 0")
            return result
        self.link.raise_failure()  # what was gathered from a process that failed is no result
        with self.working_alone():
            result = work()
        self.link.post(key, result)
        return result

    def share(self, items: int) -> SharedItems:
        """Items of work, each to be done by one of the processes."""
        return _GroupItems(items, self.link, self._key("items"))

    def _key(self, purpose: str) -> str:
        """A new key, the same in all processes, which make the same calls."""
        self._calls[purpose] += 1
        return f"{purpose}/{self._calls[purpose]}"


class _GroupItems(SharedItems):
    def __init__(self, items: int, link: Link, key: str):
        super().__init__(items)
        self._link, self._key = link, key

    def __iter__(self) -> Iterator[int]:
        while not self.stopped:
            self._link.raise_failure()
            item = self._link.add(f"{self._key}/taken", 1) - 1
            if item >= self.items:
                break
            yield item

    def finish(self) -> None:
        self._link.add(f"{self._key}/done", 1)

    @property
    def done(self) -> int:
        return self._link.add(f"{self._key}/done", 0)

    @property
    def stopped(self) -> bool:
        return self._link.has(f"{self._key}/stop")

    def stop(self) -> None:
        self._link.post(f"{self._key}/stop")

    def join(self, show: Callable[[int], None]) -> None:
        self._link.add(f"{self._key}/left", 1)
        if self._link.rank == 0:
            self._link.wait_until(
                lambda: self._link.add(f"{self._key}/left", 0) == self._link.size,
                lambda: f"the other processes: {self.done} of {self.items} items are done",
                lambda: show(self.done),
            )


@dataclass(frozen=True)
class Seen:
    """What one process sees of the world."""

    rank: int
    size: int
    local_rank: int
    host: str
    device: str
    """Unique name of its GPU; ``cpu``: it has none."""
    torch_version: str
    version: str
    slurm_tasks: int | None
    """Number of tasks that Slurm announced to it."""
    slurm_node: int | None = None
    """Index of its node among those of Slurm's step; None: it is no task of one."""
    slurm_nodes: int | None = None
    """Number of these nodes."""
    loopback: str | None = None
    """Loopback address that its host name resolves to, by which gloo would tell others to reach it.

    None: another address, or :data:`INTERFACE` names what gloo uses.
    """

    @classmethod
    def here(cls, world: World, device: torch.device) -> Seen:
        """What this process sees."""
        return cls(
            world.rank,
            world.size,
            world.local_rank,
            platform.node(),
            _unique_name(device),
            str(torch.__version__),
            __version__,
            _of_slurm("SLURM_STEP_NUM_TASKS"),
            _of_slurm("SLURM_NODEID"),
            _of_slurm("SLURM_STEP_NUM_NODES"),
            None if os.environ.get(INTERFACE) else _loopback_address(platform.node()),
        )


def contradiction(seen: Sequence[Seen]) -> str | None:
    """Why the processes cannot work together, from what each of them sees; None if they can."""
    main = seen[0]
    for one in seen:
        for what, ours, theirs in (
            ("WORLD_SIZE", main.size, one.size),
            ("torch", main.torch_version, one.torch_version),
            ("pae-framework", main.version, one.version),
        ):
            if ours != theirs:
                return (
                    f"{what} is {ours} for rank 0 on {main.host}, but {theirs} for rank {one.rank} "
                    f"on {one.host}"
                )
    if main.slurm_tasks is not None and main.slurm_tasks > main.size:
        return (
            f"Slurm started {main.slurm_tasks} tasks, but WORLD_SIZE is {main.size}: some tasks "
            "would work alone"
        )
    if problem := _contradicts_slurm(seen):
        return problem
    if len({one.host for one in seen}) > 1:
        for one in seen:
            if one.loopback is not None:
                return (
                    f"rank {one.rank}: the host name {one.host} resolves to {one.loopback}, where "
                    "other machines cannot reach it; correct /etc/hosts there, or set "
                    f"{INTERFACE} to the network interface between the machines"
                )
    holders: dict[tuple[str, str], int] = {}
    for one in seen:
        key = (one.host, one.device)
        if one.device != "cpu" and key in holders:
            return (
                f"ranks {holders[key]} and {one.rank} on {one.host} have the same GPU "
                f"({one.device}); start one process per GPU"
            )
        holders[key] = one.rank
    return None


def _contradicts_slurm(seen: Sequence[Seen]) -> str | None:
    """Why the processes are not those that Slurm started, one for each task of its step."""
    nodes = {one.slurm_node for one in seen}
    if seen[0].slurm_tasks != seen[0].size or None in nodes:
        return None  # started by another launcher, such as torchrun in a task
    if seen[0].slurm_nodes is not None and len(nodes) != seen[0].slurm_nodes:
        return (
            f"Slurm started tasks on {seen[0].slurm_nodes} nodes, but the processes are on "
            f"{len(nodes)}: {', '.join(dict.fromkeys(one.host for one in seen))}"
        )
    places: dict[tuple[int | None, int], Seen] = {}
    for one in seen:
        other = places.setdefault((one.slurm_node, one.local_rank), one)
        if other is not one:
            return (
                f"ranks {other.rank} on {other.host} and {one.rank} on {one.host} are both "
                f"process {one.local_rank} of node {one.slurm_node}"
            )
    return None


def _of_slurm(name: str) -> int | None:
    """A number that Slurm tells each task of a step; None: this process is none."""
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() and "SLURM_PROCID" in os.environ else None


@contextmanager
def _loopback() -> Iterator[None]:
    """Let gloo use the loopback interface, so that the host name need not resolve."""
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    if not names or os.environ.get(INTERFACE):
        yield
        return
    os.environ[INTERFACE] = names[0]
    try:
        yield
    finally:
        del os.environ[INTERFACE]


def _loopback_address(host: str) -> str | None:
    """The address of a host name if it is a loopback address, else None."""
    try:
        address = socket.gethostbyname(host)
    except OSError:  # gloo's own error says so if it matters
        return None
    return address if address.startswith("127.") else None


def _unique_name(device: torch.device) -> str:
    if device.type != "cuda":
        return device.type
    return str(torch.cuda.get_device_properties(device).uuid)


def _ranks(ranks: Sequence[int], most: int = 8) -> str:
    shown = ", ".join(map(str, ranks[:most]))
    more = f" and {len(ranks) - most} more" if len(ranks) > most else ""
    return f"rank{'s' if ranks[1:] else ''} {shown}{more}"
