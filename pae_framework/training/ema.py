"""Exponential moving average of weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EMA:
    """Average of a module's trainable parameters, updated once per optimizer step.

    It starts as a copy of the weights. Each update sets it to ``decay * average + (1 - decay) *
    weight`` (LightningDiT, DiT). Buffers and frozen parameters are not averaged.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self._names = [name for name, p in module.named_parameters() if p.requires_grad]
        self._weights: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
        self._averages = [p.detach().clone() for p in self._weights]

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the weights."""
        torch._foreach_lerp_(self._averages, self._weights, 1 - self.decay)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages, by parameter name."""
        return dict(zip(self._names, self._averages, strict=True))

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load what :meth:`state_dict` returned; a missing average starts at its weight."""
        for name, average, weight in zip(self._names, self._averages, self._weights, strict=True):
            average.copy_(state.get(name, weight))
