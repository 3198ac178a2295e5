"""Exponential moving average of weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pae_framework.training.parallel import part, parts_like, sharded_like


class EMA:
    """Average of a module's trainable parameters, updated once per optimizer step.

    It starts as a copy of the weights. Each update sets it to ``decay * average + (1 - decay) *
    weight`` (LightningDiT, DiT). Buffers and frozen parameters are not averaged. Each process
    averages its part of sharded weights.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._averages = [weight.clone() for weight in self._weights()]

    @torch.no_grad()
    def _weights(self) -> list[Tensor]:
        """The weights, or their parts: FSDP2 of torch 2.6 may give a weight another storage."""
        return [part(parameter.detach()) for parameter in self._parameters.values()]

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the weights."""
        torch._foreach_lerp_(self._averages, self._weights(), 1 - self.decay)

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
