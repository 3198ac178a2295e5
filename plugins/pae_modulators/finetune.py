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
    """The encoder, finetuned: a copy of it makes the tokens and learns with the tokenizer.

    The paper (arXiv 2605.07915, Table 3b) compares the modulator with finetuning the foundation
    model and states no more; inferred here: every weight the tokens depend on is trained, from the
    pretrained values on, and features and targets still come from the frozen original. Weights that
    take no part in the tokens (a pooling head, a mask token) stay as they are. The copy stays in
    eval mode: pretrained networks are finetuned here without dropout and coordinate jitter.

    Which weights those are is found where the training begins, when :meth:`train` is first called,
    for it takes a forward and a backward pass.

    Args:
        config: nothing to set.
        encoder: copied with the weights it has, so it must be loaded before.
    """

    def __init__(self, config: FinetuneConfig, encoder: Encoder):
        super().__init__(config, encoder)
        self.encoder = copy.deepcopy(encoder).eval().requires_grad_()
        self._looked = False

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """The copy's tokens (B, N, D) of normalised pixels (B, 3, S', S').

        ``tokens``, the frozen encoder's, are not looked at.
        """
        features: Tensor = self.encoder(pixels).tokens
        return features

    def train(self, mode: bool = True) -> Self:
        """Like any module's, but the copy stays in eval mode.

        Raises:
            UsageError: gradients do not pass through the encoder.
        """
        super().train(mode)
        self.encoder.eval()
        if mode and not self._looked:
            self._looked = True
            _freeze_what_tokens_do_without(self.encoder)
        return self


def _freeze_what_tokens_do_without(encoder: Encoder) -> None:
    """Turn gradients off for the weights through which a blank image's tokens do not go."""
    weights = list(encoder.parameters())
    if weights and not any(weight.requires_grad for weight in weights):
        return  # somebody froze them all
    size = encoder.image_size
    blank = torch.zeros(1, 3, size, size, device=weights[0].device if weights else None)
    with torch.enable_grad():
        tokens = encoder(encoder.normalize(blank)).tokens
        if not tokens.requires_grad:
            raise UsageError(
                f"tokenizer.modulator: {type(encoder).__name__} cannot be finetuned; no gradient "
                "passes from its tokens to its weights"
            )
        learning = [weight for weight in weights if weight.requires_grad]
        found = torch.autograd.grad(tokens.sum(), learning, allow_unused=True)
    for weight, gradient in zip(learning, found, strict=True):
        weight.requires_grad_(gradient is not None)
