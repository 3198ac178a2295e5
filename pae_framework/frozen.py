"""Modules that use a frozen network without owning it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from torch import nn


class UsesFrozen(nn.Module):
    """A module with frozen helpers beside it, outside the module tree.

    A frozen helper has no part in ``state_dict()``, ``parameters()`` or ``train()``: it comes from
    its own file, is never optimised and stays in eval mode. Were it a sub-module, every checkpoint
    would carry hundreds of millions of numbers that never change, and ``train()`` would wake its
    dropout. It does follow ``to()``, ``cuda()`` and their like.
    """

    def __init__(self) -> None:
        super().__init__()
        self._frozen: list[str] = []

    def hold_frozen(self, name: str, module: nn.Module) -> None:
        """Freeze ``module`` (eval mode, no gradients for its weights) and keep it as ``name``.

        Gradients still flow through it to its input.
        """
        module.eval().requires_grad_(False)
        # An ordinary assignment would make it a sub-module.
        object.__setattr__(self, name, module)
        self._frozen.append(name)

    def frozen_modules(self) -> dict[str, nn.Module]:
        """The frozen helpers this module holds itself, by name, in the order they were given."""
        return {name: getattr(self, name) for name in self._frozen}

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        # Everything that moves or casts a module (to, cuda, float) goes through here.
        for module in self.frozen_modules().values():
            module._apply(fn, recurse)
        return super()._apply(fn, recurse)
