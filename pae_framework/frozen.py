"""Modules that use a frozen network without owning it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from torch import nn


class UsesFrozen(nn.Module):
    """A module with frozen helpers beside it, outside the module tree.

    A frozen helper is excluded from ``state_dict()``, ``parameters()`` and ``train()``: it comes
    from its own file, is never optimized and stays in eval mode. As a sub-module it would put
    hundreds of millions of constant numbers into every checkpoint, and ``train()`` would enable its
    dropout. It does follow ``to()``, ``cuda()`` and the like.
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
        """This module's own frozen helpers, by name, in the order they were added."""
        return {name: getattr(self, name) for name in self._frozen}

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        # to, cuda, float and the like all call this.
        for module in self.frozen_modules().values():
            module._apply(fn, recurse)
        return super()._apply(fn, recurse)
