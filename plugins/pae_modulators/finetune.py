"""Finetuning instead of a modulator: a trainable copy of the frozen encoder.

Legend: B batch, N tokens, D width, S' side of the encoder's input.
"""

from __future__ import annotations

import copy
from typing import Self

from torch import Tensor

from pae_framework.contracts import Encoder, Modulator
from pae_framework.tokenizer.trained_encoder import freeze_unused_weights
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
            freeze_unused_weights(self.encoder, "set tokenizer.modulator.use=dam")
        return self
