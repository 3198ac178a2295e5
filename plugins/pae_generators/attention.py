"""Self-attention of the generators.

Legend: B batch, N tokens, D width, H heads, K = D / H.
"""

from __future__ import annotations

from torch import Tensor, nn

from pae_framework.layers import attention_kernel
from pae_generators.config import TransformerConfig
from pae_generators.norms import head_norm
from pae_generators.positions import Rotation, rotate


class SelfAttention(nn.Module):
    """Self-attention, optionally with rotary positions and normalized queries and keys.

    Rows of the fused projection are ``[q | k | v]``, heads inner. Tensors keep the layout
    (B, N, H, K) from the projection to the result, so kernels get strided views, not copies.
    """

    def __init__(self, width: int, heads: int, config: TransformerConfig):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        head = width // heads
        self.q_norm = head_norm(config.norm, head) if config.qk_norm else nn.Identity()
        self.k_norm = head_norm(config.norm, head) if config.qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)
        self.kernel = attention_kernel(config.attention)

    def forward(self, x: Tensor, rotation: Rotation | None) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)  # (B, N, H, K)
        # The norms' weights are float32 even under autocast; kernels need one type.
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)  # (B, N, H, K)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        return self.proj(self.kernel(q, k, v).flatten(2))
