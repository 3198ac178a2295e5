"""Transformer blocks of a network: find, compile or checkpoint (recompute) them.

Blocks are changed in place. No module is wrapped, so weights keep their names and checkpoints fit
with or without it.
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
    """Blocks of a network and of the frozen networks it uses, each once, in order.

    Blocks are the items of an ``nn.ModuleList`` or ``nn.Sequential`` (as in timm) that all have one
    class and sub-modules. Blocks within blocks are not searched.
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
    # Frozen helpers are outside the module tree (frozen.UsesFrozen).
    frozen: Callable[[], dict[str, nn.Module]] = getattr(module, "frozen_modules", dict)
    for child in (*module.children(), *frozen().values()):
        yield from _blocks(child, seen)


def _alike(items: list[nn.Module]) -> bool:
    kinds = {type(item) for item in items}
    return len(kinds) == 1 and all(
        not isinstance(item, CONTAINERS) and any(True for _ in item.children()) for item in items
    )


def compile_blocks(network: nn.Module) -> None:
    """Compile each block at its first call; blocks of one class share the compiled code.

    Compiling blocks instead of the whole network is quick and allows any Python between them.
    """
    # An adaptive loss weight runs backward twice through one graph (retain_graph). Compiled code
    # with donated buffers refuses that. The switch is private, but the only one.
    from torch._functorch import config  # imports the compiler, so only if needed

    config.donated_buffer = False
    for block in find_blocks(network):
        block.compile()


def recompute_blocks(network: nn.Module) -> None:
    """Store only a block's inputs and recompute its activations in the backward pass.

    A call without gradients (evaluation, a frozen encoder under ``no_grad``) runs as before. So
    does a block that a second computation would change: one with batch norm, whose statistics would
    be updated twice, and a call that takes a ``torch.Generator``, which would advance. Dropout is
    safe, because torch restores its own random state.
    """
    for block in find_blocks(network):
        is_done = isinstance(block.forward, partial) and block.forward.func is _recomputed
        if not is_done and not any(isinstance(child, _BatchNorm) for child in block.modules()):
            learns = any(weight.requires_grad for weight in block.parameters())
            block.forward = partial(_recomputed, block.forward, learns)


def _recomputed(forward: Callable[..., Any], learns: bool, /, *args: Any, **kwargs: Any) -> Any:
    given = (*args, *kwargs.values())
    passes = learns or any(isinstance(value, Tensor) and value.requires_grad for value in given)
    draws = any(type(value) is torch.Generator for value in given)
    if not torch.is_grad_enabled() or not passes or draws:
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
