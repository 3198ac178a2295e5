"""Transformer blocks of a network: found, compiled, or computed again in the backward pass.

Both work on the blocks in place: no module is wrapped, so names of weights stay what they are and
checkpoints of either kind of run fit the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

CONTAINERS = (nn.ModuleList, nn.Sequential)


def find_blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks of a network and of the frozen networks it uses, each once, in order.

    Blocks are the items of a list (``nn.ModuleList`` or ``nn.Sequential``, as timm has) that are
    all of one class and have parts of their own; blocks within blocks are not looked for.
    """
    seen: set[int] = set()
    return list(_blocks(network, seen))


def _blocks(module: nn.Module, seen: set[int]) -> Iterator[nn.Module]:
    if id(module) in seen:
        return
    seen.add(id(module))
    if isinstance(module, CONTAINERS) and _alike(list(module)):
        yield from (item for item in module if id(item) not in seen)
        seen.update(id(item) for item in module)
        return
    # Frozen helpers stand outside the module tree (tokenizer.frozen.UsesFrozen).
    frozen: Callable[[], dict[str, nn.Module]] = getattr(module, "frozen_modules", dict)
    for part in (*module.children(), *frozen().values()):
        yield from _blocks(part, seen)


def _alike(items: list[nn.Module]) -> bool:
    kinds = {type(item) for item in items}
    return len(kinds) == 1 and all(
        not isinstance(item, CONTAINERS) and any(True for _ in item.children()) for item in items
    )


def compile_blocks(network: nn.Module) -> None:
    """Have each block compiled when it is first called; blocks of one class share the result.

    Block by block, not as a whole: quick to compile, and what stands between the blocks may be any
    Python.
    """
    # An adaptive loss weight goes backward twice through the same graph (retain_graph), which
    # compiled code refuses where it gives its buffers away. Private, yet the only switch there is.
    from torch._functorch import config  # loads the compiler: only where something is compiled

    config.donated_buffer = False
    for block in find_blocks(network):
        block.compile()


def recompute_blocks(network: nn.Module) -> None:
    """Keep a block's inputs only, and compute its activations again in the backward pass.

    Where no gradient passes (in evaluation, or in a frozen encoder under ``no_grad``) a block works
    as before. So it does where computing twice is not computing the same: with batch norm, whose
    statistics would move twice, and in calls that are given a ``torch.Generator``, which would draw
    on. Numbers of torch's own streams (dropout) are drawn the same again.
    """
    for block in find_blocks(network):
        again = isinstance(block.forward, partial) and block.forward.func is _recomputed
        if not again and not any(isinstance(part, _BatchNorm) for part in block.modules()):
            learns = any(weight.requires_grad for weight in block.parameters())
            block.forward = partial(_recomputed, block.forward, learns)


def _recomputed(forward: Callable[..., Any], learns: bool, /, *args: Any, **kwargs: Any) -> Any:
    given = (*args, *kwargs.values())
    passes = learns or any(isinstance(value, Tensor) and value.requires_grad for value in given)
    draws = any(type(value) is torch.Generator for value in given)
    if not torch.is_grad_enabled() or not passes or draws:
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
