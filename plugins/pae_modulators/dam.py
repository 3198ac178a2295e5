"""The detail-aware modulator: adds pixel detail to the frozen encoder's tokens.

Legend: B batch, N tokens, D width, H heads, P patch side in px, S' side of the encoder's input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pae_framework.config import AttentionKernel
from pae_framework.contracts import Encoder, Modulator
from pae_framework.layers import (
    Attention,
    Mlp,
    attention_kernel,
    map_to_tokens,
    sincos_positions,
)
from pae_modulators.config import DAMConfig

EPS = 1e-5
"""Epsilon of every LayerNorm in the released modulator."""


class DetailAwareModulator(Modulator):
    """Detail-aware modulator, DAM (PAE, arXiv 2605.07915, section 3; ``DeltaEncoder`` in its code).

    In each block, image patches attend to each other and to the encoder's tokens u. The result, the
    detail h, is merged into u by :meth:`fuse`. For ``sft`` and ``add`` the projection of h starts
    at zero, so training starts from ``LN(u)``. State-dict keys are those of the released
    checkpoints (prefix ``delta_encoder.``).
    """

    pos_embed: Tensor

    def __init__(self, config: DAMConfig, encoder: Encoder):
        super().__init__(config, encoder)
        width, heads = encoder.width, config.heads or encoder.heads
        self.patch_embed = PatchEmbed(encoder.patch, width)
        # Fixed, but part of the released files, which computed the angles in float32.
        self.register_buffer("pos_embed", sincos_positions(encoder.grid, width, torch.float32))
        self.layers = nn.ModuleList(
            DAMLayer(width, heads, config.mlp_ratio, config.cross, config.attention)
            for _ in range(config.depth)
        )
        self.fusion = config.fusion
        if self.fusion != "none":
            self.fusion_proj = _fusion_projection(self.fusion, width)
            self.final_ln = nn.LayerNorm(width, eps=EPS)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Modulated tokens (B, N, D) of normalized pixels (B, 3, S', S') and tokens (B, N, D)."""
        detail = self.patch_embed(pixels) + self.pos_embed  # (B, N, D)
        for layer in self.layers:
            detail = layer(detail, tokens)
        return self.fuse(detail, tokens)

    def fuse(self, detail: Tensor, tokens: Tensor) -> Tensor:
        """Merge the detail h into the tokens u; both (B, N, D).

        ``sft``: LN(u (1 + gamma) + beta) with (gamma, beta) = W h. ``add``: LN(W h + u).
        ``concat``: LN(W [u, h]). ``none``: h alone. (PAE's code; compared in the paper's Table 3b.)
        """
        if self.fusion == "none":
            return detail
        if self.fusion == "concat":
            fused = self.fusion_proj(torch.cat([tokens, detail], dim=-1))
        elif self.fusion == "add":
            fused = self.fusion_proj(detail) + tokens
        else:
            gamma, beta = self.fusion_proj(detail).chunk(2, dim=-1)  # each (B, N, D)
            fused = tokens * (1 + gamma) + beta
        return self.final_ln(fused)


def _fusion_projection(fusion: str, width: int) -> nn.Linear:
    """The W of :meth:`DetailAwareModulator.fuse`; starts at zero except for ``concat``."""
    if fusion == "concat":
        return nn.Linear(2 * width, width)
    projection = nn.Linear(width, 2 * width if fusion == "sft" else width)
    nn.init.zeros_(projection.weight)
    nn.init.zeros_(projection.bias)
    return projection


class DAMLayer(nn.Module):
    """Pre-norm self-attention, cross-attention to the encoder's tokens and MLP, each residual.

    Args:
        width: D.
        heads: H; divides D.
        mlp_ratio: MLP width over D.
        cross: whether there is a cross-attention.
        kernel: attention kernel.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        cross: bool = True,
        kernel: AttentionKernel = "sdpa",
    ):
        super().__init__()
        self.cross = cross
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.self_attn = Attention(width, heads, kernel=kernel)
        if cross:
            self.norm2_q = nn.LayerNorm(width, eps=EPS)
            self.norm2_kv = nn.LayerNorm(width, eps=EPS)
            self.cross_attn = CrossAttention(width, heads, kernel)
        self.norm3 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, N, D) and the context (B, M, D) to (B, N, D)."""
        x = x + self.self_attn(self.norm1(x))
        if self.cross:
            x = x + self.cross_attn(self.norm2_q(x), self.norm2_kv(context))
        return x + self.mlp(self.norm3(x))


class CrossAttention(nn.Module):
    """Attention with queries from one set of tokens and keys and values from another."""

    def __init__(self, width: int, heads: int, kernel: AttentionKernel = "sdpa"):
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide the width {width}")
        self.heads = heads
        self.kernel = attention_kernel(kernel)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, N, D) and the context (B, M, D) to (B, N, D)."""
        split = (self.heads, -1)
        q = self.q_proj(x).unflatten(-1, split)  # (B, N, H, D / H)
        k = self.k_proj(context).unflatten(-1, split)  # (B, M, H, D / H)
        v = self.v_proj(context).unflatten(-1, split)
        return self.proj(self.kernel(q, k, v).flatten(2))


class PatchEmbed(nn.Module):
    """One linear map of each P x P patch to a token."""

    def __init__(self, patch: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch, stride=patch)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S', S') to (B, N, D)."""
        return map_to_tokens(self.proj(pixels))
