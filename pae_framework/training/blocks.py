"""Find the transformer blocks of a network; compile them or recompute their activations.

Blocks are changed in place. No module is wrapped, so weights keep their names, and checkpoints do
not depend on either setting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

CONTAINERS = (nn.ModuleList, nn.Sequential)


def find_blocks(network: nn.Module) -> list[nn.Module]:
    """Blocks of a network and of the frozen networks it uses, each once, in order.

    Blocks are the items of an ``nn.ModuleList`` or ``nn.Sequential`` (as in timm) if all items have
    the same class and have sub-modules. Blocks are not searched for inner blocks.
    """
    return list(_blocks(network, seen=set()))


def _blocks(module: nn.Module, seen: set[int]) -> Iterator[nn.Module]:
    if id(module) in seen:
        return
    seen.add(id(module))
    if isinstance(module, CONTAINERS) and _are_blocks(list(module)):
        yield from (item for item in module if id(item) not in seen)
        seen.update(id(item) for item in module)
        return
    # Frozen helpers are outside the module tree (frozen.UsesFrozen).
    frozen: Callable[[], dict[str, nn.Module]] = getattr(module, "frozen_modules", dict)
    for child in (*module.children(), *frozen().values()):
        yield from _blocks(child, seen)


def _are_blocks(items: list[nn.Module]) -> bool:
    one_class = len({type(item) for item in items}) == 1
    return one_class and all(
        not isinstance(item, CONTAINERS) and any(True for _ in item.children()) for item in items
    )


def compile_blocks(network: nn.Module, dynamic: bool | None = None) -> None:
    """Compile each block at its first call; blocks of one class share the compiled code.

    Compiling blocks instead of the whole network is quick and allows any Python between them.

    Args:
        network: has the blocks.
        dynamic: False: compile anew for every shape; None: the second shape compiles code for all.
    """
    # An adaptive loss weight runs backward twice through one graph (retain_graph). Compiled code
    # with donated buffers refuses that. This private switch is the only one.
    from torch._functorch import config  # imports the compiler, so only if needed

    config.donated_buffer = False
    for block in find_blocks(network):
        block.compile(dynamic=dynamic)


def recompute_blocks(network: nn.Module) -> None:
    """Store only a block's inputs and recompute its activations in the backward pass.

    Calls without gradients (evaluation, a frozen encoder under ``no_grad``) run as before. So do
    computations that must not run twice: blocks with batch norm, whose statistics would be updated
    twice, and calls that take a ``torch.Generator``, which would advance. Dropout is safe, because
    torch restores its own random state.
    """
    for block in find_blocks(network):
        is_wrapped = isinstance(block.forward, partial) and block.forward.func is _recomputed
        if not is_wrapped and not any(isinstance(child, _BatchNorm) for child in block.modules()):
            trainable = any(weight.requires_grad for weight in block.parameters())
            block.forward = partial(_recomputed, block.forward, trainable)


def _recomputed(forward: Callable[..., Any], trainable: bool, /, *args: Any, **kwargs: Any) -> Any:
    inputs = (*args, *kwargs.values())
    differentiable = trainable or any(isinstance(v, Tensor) and v.requires_grad for v in inputs)
    draws = any(issubclass(type(value), torch.Generator) for value in inputs)
    if not torch.is_grad_enabled() or not differentiable or draws:
        return forward(*args, **kwargs)
    return torch.utils.checkpoint.checkpoint(forward, *args, use_reentrant=False, **kwargs)
