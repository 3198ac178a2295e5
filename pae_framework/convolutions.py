"""Blocks of latent diffusion's convolutional autoencoders (arXiv 2112.10752), with its names.

Legend: B batch, C channels, h x w side of a map.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.convolution_settings import GROUPS, Level

EPS = 1e-6
"""Epsilon of every group norm."""


class Norm(nn.GroupNorm):
    """Group norm of 32 groups."""

    def __init__(self, width: int):
        super().__init__(GROUPS, width, eps=EPS)


class ResidualBlock(nn.Module):
    """x + conv(swish(norm(conv(swish(norm(x))))), with a 1x1 convolution of x if widths differ."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1 = Norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
        self.norm2 = Norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1)
        self.nin_shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C', h, w)."""
        inner = self.conv1(F.silu(self.norm1(x)))
        inner = self.conv2(F.silu(self.norm2(inner)))
        return inner + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class MapAttention(nn.Module):
    """x + attention of one head between all positions of a map, after a norm."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = Norm(width)
        self.q = nn.Conv2d(width, width, kernel_size=1)
        self.k = nn.Conv2d(width, width, kernel_size=1)
        self.v = nn.Conv2d(width, width, kernel_size=1)
        self.proj_out = nn.Conv2d(width, width, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        normed = self.norm(x)
        q, k, v = (
            part(normed).flatten(2).transpose(1, 2)[:, None] for part in (self.q, self.k, self.v)
        )  # (B, 1, h w, C)
        attended = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(attended[:, 0].transpose(1, 2).reshape(x.shape))


class Middle(nn.Module):
    """A residual block, an attention and another residual block."""

    def __init__(self, width: int):
        super().__init__()
        self.block_1 = ResidualBlock(width, width)
        self.attn_1 = MapAttention(width)
        self.block_2 = ResidualBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Downsample(nn.Module):
    """A convolution of stride 2 that pads right and bottom edges only."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h/2, w/2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Every position four times, then a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, 2h, 2w)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class LevelBlocks(nn.Module):
    """The residual blocks of one level, each with its attention.

    Args:
        level: their widths.
    """

    def __init__(self, level: Level):
        super().__init__()
        self.block = nn.ModuleList(ResidualBlock(width, level.width) for width in level.inputs)
        self.attn = nn.ModuleList(MapAttention(level.width) for _ in level.inputs if level.attends)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C', h', w')."""
        for index, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[index](x)
        return x


class DownLevel(LevelBlocks):
    """A level of an encoder: the next one has half the side."""

    def __init__(self, level: Level):
        super().__init__(level)
        self.downsample = Downsample(level.width) if level.resizes else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C', h', w')."""
        x = super().forward(x)
        return x if self.downsample is None else self.downsample(x)


class UpLevel(LevelBlocks):
    """A level of a decoder: the next one has twice the side."""

    def __init__(self, level: Level):
        super().__init__(level)
        self.upsample = Upsample(level.width) if level.resizes else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C', h', w')."""
        x = super().forward(x)
        return x if self.upsample is None else self.upsample(x)
