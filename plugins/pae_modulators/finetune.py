"""Finetuning instead of a modulator: a trainable copy of the frozen encoder.

Legend: B batch, N tokens, D width, S' side of the encoder's input.
"""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor

from pae_framework.contracts import Encoder, Modulator
from pae_framework.errors import UsageError
from pae_modulators.config import FinetuneConfig


class FinetunedEncoder(Modulator):
    """A copy of the encoder, which makes the tokens and is trained with the tokenizer.

    The paper (arXiv 2605.07915, Table 3b) compares the modulator with finetuning the foundation
    model and gives no details. Inferred here: every weight that the tokens depend on is trained,
    starting from its pretrained value; features and targets still come from the frozen encoder.
    Other weights (a pooling head, a mask token) are frozen. The copy stays in eval mode, so dropout
    and coordinate jitter are off.

    The first call of :meth:`train` finds the weights to freeze, by a forward and a backward pass.

    Args:
        config: has no settings.
        encoder: copied with its weights, so load them first.
    """

    def __init__(self, config: FinetuneConfig, encoder: Encoder):
        super().__init__(config, encoder)
        self.encoder = copy.deepcopy(encoder).eval().requires_grad_()
        self._unused_frozen = False

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """The copy's tokens (B, N, D) of normalized pixels (B, 3, S', S').

        The frozen encoder's ``tokens`` are not used.
        """
        return self.encoder(pixels).tokens

    def train(self, mode: bool = True) -> Self:
        """Set the mode; the copy stays in eval mode.

        Raises:
            UsageError: gradients do not pass through the encoder.
        """
        super().train(mode)
        self.encoder.eval()
        if mode and not self._unused_frozen:
            self._unused_frozen = True
            _freeze_unused_weights(self.encoder)
        return self


def _freeze_unused_weights(encoder: Encoder) -> None:
    """Freeze the weights that the tokens of a blank image do not depend on."""
    weights = list(encoder.parameters())
    if weights and not any(weight.requires_grad for weight in weights):
        return  # all frozen already
    size = encoder.image_size
    blank = torch.zeros(1, 3, size, size, device=weights[0].device if weights else None)
    with torch.enable_grad():
        tokens = encoder(encoder.normalize(blank)).tokens
        if not tokens.requires_grad:
            raise UsageError(
                f"tokenizer.modulator: {type(encoder).__name__} cannot be finetuned: "
                "its tokens have no gradients; set tokenizer.modulator.use=dam"
            )
        trained = [weight for weight in weights if weight.requires_grad]
        gradients = torch.autograd.grad(tokens.sum(), trained, allow_unused=True)
    for weight, gradient in zip(trained, gradients, strict=True):
        weight.requires_grad_(gradient is not None)
