"""Moving averages of weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pae_framework.training.parallel import part, parts_like, sharded_like
from pae_framework.training.power_profiles import decay


class WeightAverage:
    """Average of a module's trainable parameters, which starts as a copy of them.

    Buffers and frozen parameters are not averaged. Each process averages its part of sharded
    weights.
    """

    def __init__(self, module: nn.Module):
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._averages = [weight.clone() for weight in self._weights()]

    @torch.no_grad()
    def _weights(self) -> list[Tensor]:
        """The weights, or their parts: FSDP2 of torch 2.6 may give a weight another storage."""
        return [part(parameter.detach()) for parameter in self._parameters.values()]

    @torch.no_grad()
    def move(self, decay: float) -> None:
        """Set the averages to ``decay * average + (1 - decay) * weight``."""
        torch._foreach_lerp_(self._averages, self._weights(), 1 - decay)

    @torch.no_grad()
    def replace_weights(self) -> None:
        """Set the weights to their averages."""
        for weight, average in zip(self._weights(), self._averages, strict=True):
            weight.copy_(average)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages, by parameter name; sharded like the parameters."""
        pairs = zip(self._parameters.items(), self._averages, strict=True)
        return {name: sharded_like(parameter, own) for (name, parameter), own in pairs}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load the averages as whole tensors; a missing one starts at its weight."""
        parts = parts_like(self._parameters, state)
        pairs = zip(self._parameters.items(), self._averages, strict=True)
        for (name, parameter), average in pairs:
            average.copy_(part(parts.get(name, parameter)))


class EMA(WeightAverage):
    """Average with a constant decay, updated once per optimizer step (LightningDiT, DiT)."""

    def __init__(self, module: nn.Module, decay: float):
        super().__init__(module)
        self.decay = decay

    def update(self) -> None:
        """Move the averages towards the weights."""
        self.move(self.decay)


class PowerEMA(WeightAverage):
    """Average with the power-function profile of a relative length (EDM2, arXiv 2312.02696)."""

    def __init__(self, module: nn.Module, length: float):
        super().__init__(module)
        self.length = length

    def update(self, step: int) -> None:
        """Move the averages towards the weights after optimizer step ``step``; the first is 1."""
        self.move(decay(self.length, step))
