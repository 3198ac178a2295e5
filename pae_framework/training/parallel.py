"""Train one network in several processes: replicated (DDP), or sharded over them (FSDP2).

Neither changes the names of weights. A sharded weight is a DTensor, of which each process has a
part along the first dimension. :func:`whole_tensors` and :func:`parts_like` translate, so that
checkpoints and weights hold whole tensors, whatever trained them.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pae_framework.contracts import Batch, LossTerms
from pae_framework.training.blocks import find_blocks
from pae_framework.training.train_settings import Parallel
from pae_framework.world import World

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor


class ParallelModule:
    """A network whose gradients are averaged over all processes; with one, the network itself.

    Build it before the optimizer: sharding replaces the parameters.

    Args:
        module: ``module(batch, generator)`` returns loss terms.
        world: the processes.
        parallel: ``ddp`` or ``fsdp``.
        device: of the module.
    """

    def __init__(self, module: nn.Module, world: World, parallel: Parallel, device: torch.device):
        self._module = module
        self._replica: DistributedDataParallel | None = None
        self._is_sharded = world.size > 1 and parallel == "fsdp"
        if self._is_sharded:
            _shard(module, world, device)
        elif world.size > 1:
            # Regularizers and discriminators start late: a step may leave weights unused.
            with warnings.catch_warnings():
                # torch 2.14 has a new name for broadcast_buffers, which 2.6 lacks.
                warnings.simplefilter("ignore", FutureWarning)
                self._replica = DistributedDataParallel(
                    _LossOnly(module), broadcast_buffers=False, find_unused_parameters=True
                )

    def __call__(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """The loss terms of this process' part of a micro-batch."""
        network = self._module if self._replica is None else self._replica
        terms: LossTerms = network(batch, generator)
        return terms

    @contextmanager
    def accumulating(self, more: bool) -> Iterator[None]:
        """Around forward and backward; with ``more`` to come, gradients stay in this process."""
        if self._is_sharded:
            cast("FSDPModule", self._module).set_requires_gradient_sync(not more)
        if self._replica is not None and more:
            with self._replica.no_sync():
                yield
        else:
            yield


class _LossOnly(nn.Module):
    """Terms of which only the loss has a graph: DDP expects gradients for all that it is given."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        terms: LossTerms = self.module(batch, generator)
        return {k: value if k == "loss" else value.detach() for k, value in terms.items()}


def _shard(module: nn.Module, world: World, device: torch.device) -> None:
    """Shard each block, so that only one is gathered at a time, then what is left."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (world.size,))
    own = set(module.modules())  # find_blocks also finds those of frozen networks
    for block in find_blocks(module):
        if block in own:
            fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)


def _is_sharded(tensor: Tensor | None) -> TypeGuard[DTensor]:
    """Whether it is a DTensor, whose package takes half a second to import."""
    package = sys.modules.get("torch.distributed.tensor")
    return package is not None and isinstance(tensor, package.DTensor)


def part(tensor: Tensor) -> Tensor:
    """This process' part of a sharded tensor, with its storage; another tensor as it is."""
    return tensor.to_local() if _is_sharded(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered, another one as it is; every process must call it."""
    return tensor.full_tensor() if _is_sharded(tensor) else tensor


def whole_tensors(tensors: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """In the main process, the tensors with sharded ones gathered, one at a time, on the CPU.

    Every process must call it. The others get those that are not sharded.
    """
    found = {}
    for name, value in tensors.items():
        gathered = whole(value)
        if world.is_main:
            found[name] = gathered.cpu() if _is_sharded(value) else gathered
        elif not _is_sharded(value):
            found[name] = value
    return found


def parts_like(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors, sharded like those of the same name in ``expected``. Communicates nothing."""
    return {name: part_like(expected.get(name), value) for name, value in tensors.items()}


def part_like(expected: Tensor | None, whole: Tensor) -> Tensor:
    """A whole tensor, sharded like ``expected`` if that is sharded and has its shape."""
    if not _is_sharded(expected) or whole.shape != expected.shape:
        return whole
    (placement,) = expected.placements
    assert placement.is_shard(0)
    # The first processes have the larger parts, as torch.chunk makes them.
    size, rank = expected.device_mesh.size(), expected.device_mesh.get_local_rank()
    largest, count = -(-len(whole) // size), len(part(expected))
    start = min(rank * largest, len(whole) - count)
    own = whole[start : start + count].to(part(expected).device, copy=True)
    return sharded_like(expected, own)


def sharded_like(expected: Tensor, own: Tensor) -> Tensor:
    """This process' part of a tensor as one that is sharded like ``expected``."""
    if not _is_sharded(expected):
        return own
    return type(expected).from_local(
        own,
        expected.device_mesh,
        expected.placements,
        shape=expected.shape,
        stride=expected.stride(),
    )
