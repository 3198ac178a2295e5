"""Blocks with adaLN-Zero conditioning (DiT, Peebles and Xie 2023; LightningDiT's variants).

A condition is (B, M, D): M = 1 if the image has one condition, M = N if each token has its own (the
head of DiT-DH).

Legend: B batch, N tokens, D width, C latent channels, p patch.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.layers import Mlp
from pae_generators.attention import SelfAttention
from pae_generators.config import TransformerConfig
from pae_generators.norms import token_norm
from pae_generators.positions import Rotation
from pae_generators.presets import gated_width


class DiTBlock(nn.Module):
    """Attention and MLP, each shifted, scaled and gated by the condition."""

    def __init__(self, width: int, heads: int, config: TransformerConfig):
        super().__init__()
        self.norm1 = token_norm(config.norm, width)
        self.attn = SelfAttention(width, heads, config)
        self.norm2 = token_norm(config.norm, width)
        self.mlp = SwiGLU(width) if config.mlp == "swiglu" else TanhMlp(width, 4 * width)
        self.adaLN_modulation = Modulation(width, 6 if config.adaln_shift else 4)

    def forward(self, x: Tensor, condition: Tensor, rotation: Rotation | None) -> Tensor:
        """Tokens (B, N, D) to tokens (B, N, D), given the condition (B, M, D)."""
        outputs = self.adaLN_modulation(condition)  # each (B, M, D)
        if len(outputs) == 6:
            shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = outputs
        else:
            scale_msa, gate_msa, scale_mlp, gate_mlp = outputs
            shift_msa = shift_mlp = None
        x = x + gate_msa * self.attn(modulate(self.norm1(x), shift_msa, scale_msa), rotation)
        return x + gate_mlp * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))


class SwiGLU(nn.Module):
    """Gated MLP w3(silu(a) * b), [a | b] = w12(x) (Shazeer 2020), as large as an MLP of 4 D."""

    def __init__(self, width: int):
        super().__init__()
        hidden = gated_width(width)
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        a, b = self.w12(x).chunk(2, dim=-1)  # each (B, N, hidden)
        return self.w3(F.silu(a) * b)


class TanhMlp(Mlp):
    """Two linear layers around GELU in its tanh form, as in DiT."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class FinalLayer(nn.Module):
    """Norm, modulation, and projection of a token to its patch, laid out (row, column, channel)."""

    def __init__(self, width: int, out: int, config: TransformerConfig):
        super().__init__()
        self.norm_final = token_norm(config.norm, width)
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = Modulation(width, 2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, N, D) to (B, N, p * p * C), given the condition (B, M, D)."""
        shift, scale = self.adaLN_modulation(condition)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class Modulation(nn.Sequential):
    """Shifts, scales and gates from the condition: (B, M, D) to ``outputs`` of (B, M, D)."""

    def __init__(self, width: int, outputs: int):
        super().__init__(nn.SiLU(), nn.Linear(width, outputs * width))
        self.outputs = outputs

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        """(B, M, D) to ``outputs`` tensors (B, M, D)."""
        return super().forward(condition).chunk(self.outputs, dim=-1)


def modulate(x: Tensor, shift: Tensor | None, scale: Tensor) -> Tensor:
    """Scale tokens (B, N, D) by 1 + scale and add the shift; both are (B, M, D)."""
    scaled = x * (1 + scale)
    return scaled if shift is None else scaled + shift


def linear_layers(module: nn.Module) -> list[nn.Linear]:
    """All linear layers in a module, including itself."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def zero_modulations(network: nn.Module) -> None:
    """Zero every modulation and final layer, so that a new network returns 0."""
    for module in network.modules():
        if isinstance(module, Modulation | FinalLayer):
            for layer in linear_layers(module):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
