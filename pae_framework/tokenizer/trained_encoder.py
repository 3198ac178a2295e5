"""An encoder that is trained with its tokenizer."""

from __future__ import annotations

import torch

from pae_framework.contracts import Encoder
from pae_framework.errors import UsageError


def freeze_unused_weights(encoder: Encoder, remedy: str) -> None:
    """Freeze the weights that the tokens of a blank image do not depend on.

    They are found by a forward and a backward pass.

    Args:
        encoder: on its device, in eval mode; nothing happens if all its weights are frozen already.
        remedy: what to do if it cannot be trained; ends the error message.

    Raises:
        UsageError: gradients do not pass through the encoder.
    """
    weights = list(encoder.parameters())
    if weights and not any(weight.requires_grad for weight in weights):
        return
    size = encoder.image_size
    blank = torch.zeros(1, 3, size, size, device=weights[0].device if weights else None)
    with torch.enable_grad():
        tokens = encoder(encoder.normalize(blank)).tokens
        if not tokens.requires_grad:
            raise UsageError(
                f"{type(encoder).__name__} cannot be trained with the tokenizer: its tokens have "
                f"no gradients; {remedy}"
            )
        trained = [weight for weight in weights if weight.requires_grad]
        gradients = torch.autograd.grad(tokens.sum(), trained, allow_unused=True)
    for weight, gradient in zip(trained, gradients, strict=True):
        weight.requires_grad_(gradient is not None)
