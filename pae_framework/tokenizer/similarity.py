"""How alike the tokens of an image are to each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_gram(tokens: Tensor) -> Tensor:
    """Gram matrices (B, N, N) of l2-normalised tokens (B, N, D): the cosine of each pair.

    Float32 even under autocast: in bf16 the differences between two Gram matrices drown.
    """
    with torch.autocast(tokens.device.type, enabled=False):
        unit = F.normalize(tokens.float(), dim=-1)
        return unit @ unit.mT
