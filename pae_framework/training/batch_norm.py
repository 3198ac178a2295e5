"""Batch norm over the rows of all processes that share a batch.

``nn.SyncBatchNorm`` does the same, but not on the CPU. Norms are changed in place: no module is
wrapped, so weights and statistics keep their names.

Legend: C channels, B rows of this process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronize_batch_norm(module: nn.Module) -> None:
    """Let each batch norm in the module use the statistics of the rows of all processes.

    That is, in train mode; in eval mode nothing changes. All processes of the default group must
    then compute the same norms in the same order, each with one row or more. The gradients are
    those of the sum of the losses of all processes: each must weight its mean over its rows by its
    :attr:`~pae_framework.seeding.Rows.share`. If the group has one process, nothing changes.
    """
    if dist.get_world_size() == 1:
        return
    for norm in module.modules():
        if isinstance(norm, _BatchNorm) and not _is_synchronized(norm):
            forward = partial(_synchronized, norm, norm.forward)
            norm.forward = forward  # type: ignore[method-assign]


def _is_synchronized(norm: nn.Module) -> bool:
    return isinstance(norm.forward, partial) and norm.forward.func is _synchronized


def _synchronized(norm: _BatchNorm, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not norm.training:
        return forward(x)
    norm._check_input_dim(x)
    with torch.autocast(x.device.type, enabled=False):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        dims = [dim for dim in range(x.ndim) if dim != 1]
        local = torch.cat([wide.sum(dims), wide.new_full((1,), x.numel() // x.shape[1])])
        sums = _SumOverProcesses.apply(local)
        count = sums[-1].detach()
        mean = sums[:-1] / count  # (C,)
        centered = wide - _by_channel(mean, x)
        variance = _SumOverProcesses.apply(centered.square().sum(dims)) / count  # (C,)
        if norm.track_running_stats:
            _update_averages(norm, mean.detach(), variance.detach() * count / (count - 1))
        normalized = centered * _by_channel((variance + norm.eps).rsqrt(), x)
        if norm.affine:
            normalized = normalized * _by_channel(norm.weight, x) + _by_channel(norm.bias, x)
    return normalized.to(x.dtype)


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    """Values (C,) that broadcast over x (B, C, ...)."""
    return values.view(-1, *[1] * (x.ndim - 2))


@torch.no_grad()
def _update_averages(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics by the momentum; without one, they are averages of all calls."""
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    step = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
    for running, found in ((norm.running_mean, mean), (norm.running_var, variance)):
        assert running is not None
        running.add_(step * (found - running))


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        return _SumOverProcesses.apply(gradient)
