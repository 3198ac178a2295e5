"""Modules that use a frozen network without owning it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from torch import nn


class UsesFrozen(nn.Module):
    """A module that uses frozen networks outside its module tree.

    They are excluded from ``state_dict()``, ``parameters()`` and ``train()``: their weights come
    from other files and are never optimized, and they stay in eval mode. Sub-modules would add
    hundreds of millions of constant weights to every checkpoint, and ``train()`` would enable their
    dropout. ``to()``, ``cuda()`` and the like do apply to them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._frozen: list[str] = []

    def hold_frozen(self, name: str, module: nn.Module) -> None:
        """Freeze ``module`` (eval mode, no gradients for its weights) and set it as ``name``.

        Gradients still flow through it to its input.
        """
        module.eval().requires_grad_(False)
        # An ordinary assignment would make it a sub-module.
        object.__setattr__(self, name, module)
        self._frozen.append(name)

    def frozen_modules(self) -> dict[str, nn.Module]:
        """The frozen networks of this module itself, by name, in the order they were added."""
        return {name: getattr(self, name) for name in self._frozen}

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        # to, cuda, float and the like all call this.
        for module in self.frozen_modules().values():
            module._apply(fn, recurse)
        return super()._apply(fn, recurse)
