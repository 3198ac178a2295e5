"""LightningDiT (hustvl/LightningDiT, commit 2725fed), in the setting of its released weights.

A diffusion transformer with adaLN-Zero conditioning, RMSNorm, SwiGLU, rotary positions and fixed
absolute ones. State-dict keys are the original's, so that its weights load.

Legend: B batch, N tokens, D width, H heads, K = D / H, C latent channels, p patch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.config import LatentShape
from pae_framework.contracts import Generator
from pae_framework.layers import join_heads, sincos_positions, split_heads, unpatchify
from pae_generators.config import LightningDiTConfig
from pae_generators.embeddings import LabelEmbedding, PatchEmbedding, RotaryPositions, TimeEmbedding


class LightningDiT(Generator):
    """The network; :class:`~pae_generators.config.LightningDiTConfig` has its parameters.

    A new one gives velocity 0 everywhere (adaLN-Zero).
    """

    def __init__(self, config: LightningDiTConfig, latent: LatentShape, num_classes: int):
        super().__init__(config, latent, num_classes)
        size = config.architecture
        width, grid = size.width, latent.side // size.patch
        self.patch = size.patch
        self.x_embedder = PatchEmbedding(latent.channels, width, size.patch)
        # A parameter, though it never learns: the original counts it and saves it as one.
        self.pos_embed = nn.Parameter(sincos_positions(grid, width), requires_grad=False)
        self.t_embedder = TimeEmbedding(width)
        self.y_embedder = LabelEmbedding(num_classes, width)
        self.feat_rope = RotaryPositions(grid, width // size.heads)
        self.blocks = nn.ModuleList(
            DiTBlock(width, size.heads, config.qk_norm) for _ in range(size.depth)
        )
        self.final_layer = FinalLayer(width, size.patch**2 * latent.channels)
        self._initialize()

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Velocity (B, C, h, w) at x (B, C, h, w), time t (B,), labels y (B,)."""
        tokens = self.x_embedder(x) + self.pos_embed
        condition = self.t_embedder(t) + self.y_embedder(y)
        for block in self.blocks:
            tokens = block(tokens, condition, self.feat_rope)
        patches = self.final_layer(tokens, condition)
        return unpatchify(patches, self.patch, self.latent.channels)

    def _initialize(self) -> None:
        """Initialise as the original does, in its order."""
        for layer in linear_layers(self):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        convolution = self.x_embedder.proj
        nn.init.xavier_uniform_(convolution.weight.view(convolution.out_channels, -1))
        assert convolution.bias is not None
        nn.init.zeros_(convolution.bias)
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for layer in linear_layers(self.t_embedder):
            nn.init.normal_(layer.weight, std=0.02)
        modulations = [module for module in self.modules() if isinstance(module, Modulation)]
        for zeroed in [*modulations, self.final_layer.linear]:
            for layer in linear_layers(zeroed):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)


class DiTBlock(nn.Module):
    """Attention and MLP, each shifted, scaled and gated by the condition (adaLN-Zero)."""

    def __init__(self, width: int, heads: int, qk_norm: bool):
        super().__init__()
        self.norm1 = RMSNorm(width)
        self.attn = RotaryAttention(width, heads, qk_norm)
        self.norm2 = RMSNorm(width)
        self.mlp = SwiGLU(width)
        self.adaLN_modulation = Modulation(width, 6)

    def forward(self, x: Tensor, condition: Tensor, rope: RotaryPositions) -> Tensor:
        """Tokens (B, N, D) to tokens, under the condition (B, D)."""
        modulation = self.adaLN_modulation(condition)
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = modulation
        x = x + gate_msa * self.attn(modulate(self.norm1(x), shift_msa, scale_msa), rope)
        return x + gate_mlp * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))


class RotaryAttention(nn.Module):
    """Self-attention with rotary positions, and with normalised queries and keys if ``qk_norm``.

    Rows of the fused projection are ``[q | k | v]``, heads inner.
    """

    def __init__(self, width: int, heads: int, qk_norm: bool):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = RMSNorm(width // heads) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(width // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rope: RotaryPositions) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        # The rotation is float32 also under autocast; attention wants one type.
        q, k = rope(self.q_norm(q)).to(v.dtype), rope(self.k_norm(k)).to(v.dtype)
        return self.proj(join_heads(F.scaled_dot_product_attention(q, k, v)))


class SwiGLU(nn.Module):
    """Gated MLP w3(silu(a) * b), [a | b] = w12(x) (Shazeer 2020), about as large as one of 4 D."""

    def __init__(self, width: int):
        super().__init__()
        hidden = int(2 / 3 * (4 * width))  # rounded down, to no multiple of anything
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        a, b = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(a) * b)


class FinalLayer(nn.Module):
    """Norm, modulation, and projection of each token to its patch: (row, column, channel)."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.norm_final = RMSNorm(width)
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = Modulation(width, 2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, N, D) to (B, N, p * p * C), under the condition (B, D)."""
        shift, scale = self.adaLN_modulation(condition)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + 1e-6) in float32, back in the type of x, times a learned weight."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        unit = F.rms_norm(x.float(), x.shape[-1:], eps=1e-6)
        return unit.to(x.dtype) * self.weight


class Modulation(nn.Sequential):
    """Shifts, scales and gates from the condition: (B, D) to ``parts`` of (B, 1, D)."""

    def __init__(self, width: int, parts: int):
        super().__init__(nn.SiLU(), nn.Linear(width, parts * width))
        self.parts = parts

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Make the parts."""
        return super().forward(condition)[:, None].chunk(self.parts, dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Shift and scale tokens (B, N, D) by a condition (B, 1, D)."""
    return x * (1 + scale) + shift


def linear_layers(module: nn.Module) -> list[nn.Linear]:
    """All linear layers in a module, itself included."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
