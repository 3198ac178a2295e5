"""The ViT decoder of PAE and RAE (ViT-MAE's decoder, He et al. 2022, with a trainable class token).

State-dict keys are those of the released checkpoints (prefix ``decoder.``), which follow ViT-MAE in
transformers.

Legend: B batch, N tokens, D width of the input tokens, Dd width of the decoder, F hidden width of
the MLPs, H heads, K = Dd / H, P patch side in px, S image side in px.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_decoders.config import VitDecoderConfig
from pae_framework.config import AttentionKernel
from pae_framework.contracts import Decoder
from pae_framework.layers import attention_kernel, sincos_positions, unpatchify

EPS = 1e-12
"""Epsilon of every LayerNorm in ViT-MAE."""


class VitDecoder(Decoder):
    """Tokens to normalized pixels: linear embedding, class token, fixed positions, pre-norm blocks,
    linear head. The number of tokens is fixed by the grid."""

    decoder_pos_embed: Tensor

    def __init__(self, config: VitDecoderConfig, width: int, grid: int):
        super().__init__(config, width, grid)
        inner, hidden = config.width, config.mlp or 4 * config.width
        self.patch = config.patch
        self.decoder_embed = nn.Linear(width, inner)
        self.trainable_cls_token = nn.Parameter(torch.zeros(1, 1, inner))
        # Fixed, but part of the released files. The position of the class token is zero.
        positions = F.pad(sincos_positions(grid, inner), (0, 0, 1, 0))  # (1, 1 + N, Dd)
        self.register_buffer("decoder_pos_embed", positions)
        self.decoder_layers = nn.ModuleList(
            VitBlock(inner, config.heads, hidden, config.attention) for _ in range(config.depth)
        )
        self.decoder_norm = nn.LayerNorm(inner, eps=EPS)
        self.decoder_pred = nn.Linear(inner, 3 * config.patch**2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Normalized pixels (B, 3, S, S), S = P * grid, of tokens (B, N, D)."""
        x = self.decoder_embed(tokens)  # (B, N, Dd)
        class_token = self.trainable_cls_token.expand(len(x), -1, -1).to(x.dtype)  # (B, 1, Dd)
        x = torch.cat([class_token, x], dim=1)  # (B, 1 + N, Dd)
        x = x + self.decoder_pos_embed
        for block in self.decoder_layers:
            x = block(x)
        patches = self.decoder_pred(self.decoder_norm(x[:, 1:]))  # (B, N, 3 P P)
        return unpatchify(patches, self.patch)

    def last_layer(self) -> nn.Parameter:
        """Weight (3 P P, Dd) of the linear head."""
        weight = self.decoder_pred.weight
        assert isinstance(weight, nn.Parameter)
        return weight


class VitBlock(nn.Module):
    """Pre-norm block: t + attention(norm(t)), then t + mlp(norm(t)), with ViT-MAE's key names."""

    def __init__(self, width: int, heads: int, hidden: int, kernel: AttentionKernel = "sdpa"):
        super().__init__()
        self.layernorm_before = nn.LayerNorm(width, eps=EPS)
        self.attention = VitAttention(width, heads, kernel)
        self.layernorm_after = nn.LayerNorm(width, eps=EPS)
        self.intermediate = Dense(width, hidden)
        self.output = Dense(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, Dd) to (B, N, Dd)."""
        x = x + self.attention(self.layernorm_before(x))
        return x + self.output(F.gelu(self.intermediate(self.layernorm_after(x))))


class VitAttention(nn.Module):
    """Self-attention with separate projections and ViT-MAE's key names."""

    def __init__(self, width: int, heads: int, kernel: AttentionKernel = "sdpa"):
        super().__init__()
        self.heads = heads
        self.kernel = attention_kernel(kernel)
        self.attention = nn.ModuleDict(
            {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        )
        self.output = Dense(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, Dd) to (B, N, Dd)."""
        split = (self.heads, -1)  # (B, N, Dd) to (B, N, H, Dd / H)
        q, k, v = (project(x).unflatten(-1, split) for project in self.attention.values())
        return self.output(self.kernel(q, k, v).flatten(2))


class Dense(nn.Module):
    """A linear layer one level deeper, as in the released keys (``output.dense.weight``)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return self.dense(x)
