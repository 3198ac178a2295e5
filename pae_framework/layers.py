"""Transformer layers and tensor functions of several networks. State-dict keys follow timm.

Legend: B batch, N = g * g tokens, D width, H heads, K = D / H, S image side, p patch side in px.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.config import AttentionKernel
from pae_framework.constants import channels
from pae_framework.errors import UsageError

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Softmax attention of q, k, v (B, N, H, K), scaled by K^-1/2; the result has their shape."""


class Attention(nn.Module):
    """Self-attention with one fused projection, rows ``[q | k | v]``, heads inner (as in timm).

    Args:
        width: D.
        heads: H; divides D.
        qkv_bias: whether the fused projection has a bias; the output projection always has one.
        kernel: name of the attention kernel.
    """

    def __init__(
        self, width: int, heads: int, qkv_bias: bool = True, kernel: AttentionKernel = "sdpa"
    ):
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide the width {width}")
        self.heads = heads
        self.kernel = attention_kernel(kernel)
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)  # (B, N, H, K)
        return self.proj(self.kernel(q, k, v).flatten(2))


class Mlp(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float = 4.0,
        eps: float = 1e-6,
        kernel: AttentionKernel = "sdpa",
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, kernel=kernel)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def attention_kernel(name: AttentionKernel) -> Kernel:
    """The attention kernel with that name. On the meta device all are torch's.

    Calls of xformers' raise UsageError if it is not installed or has no kernel for the tensors.
    """
    return {"sdpa": _sdpa, "matmul": _matmul}.get(name) or _xformers()


def require_kernel(name: AttentionKernel, device: torch.device) -> None:
    """Try a kernel in bf16, forward and backward.

    Raises:
        UsageError: it cannot be used on the device.
    """
    q = torch.zeros(1, 8, 1, 64, device=device, dtype=torch.bfloat16, requires_grad=True)
    try:
        attention_kernel(name)(q, q, q).sum().backward()
    except RuntimeError as error:  # a library built for another GPU or torch
        raise UsageError(
            f"`attention: {name}` fails on {device.type}: {error}; set attention=sdpa"
        ) from error


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, H, N, K)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _matmul(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, H, N, K)
    weights = (q * q.shape[-1] ** -0.5) @ k.mT
    return (weights.softmax(dim=-1).to(v.dtype) @ v).transpose(1, 2)


def _xformers() -> Kernel:
    kernel: Kernel
    try:
        kernel = import_module("xformers.ops").memory_efficient_attention
    except Exception as error:  # of any type, if it was built for another torch
        kernel = partial(_unusable, str(error))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.is_meta:
            return _sdpa(q, k, v)
        try:
            return kernel(q, k, v)
        except NotImplementedError as error:
            raise UsageError(
                f"xformers has no attention kernel for {q.dtype} with {q.shape[-1]} dimensions per "
                f"head on {q.device.type}; set attention=sdpa"
            ) from error

    return attend


def _unusable(reason: str, /, *tensors: Tensor) -> Tensor:
    raise UsageError(
        f"`attention: xformers` cannot be used: {reason}; install 'pae-framework[xformers]', or "
        "set attention=sdpa"
    )


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, D) to (B, H, N, K)."""
    B, N, D = x.shape
    return x.view(B, N, heads, D // heads).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(B, H, N, K) to (B, N, D)."""
    B, H, N, K = x.shape
    return x.transpose(1, 2).reshape(B, N, H * K)


def sincos_positions(grid: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Fixed 2-D sine-cosine codes (1, N, D), float32: column code first, row code second.

    Each half is ``[sin(m w_k), cos(m w_k)]`` with ``w_k = 10000^(-k / (D/4))`` (LightningDiT,
    ViT-MAE; MoCo v3 before them).

    Args:
        grid: tokens per side.
        width: D, a multiple of 4.
        dtype: type of the angles: float64 in LightningDiT and the ViT-MAE decoder, float32 in PAE's
            modulator.
    """
    if width % 4:
        raise ValueError(f"sine-cosine positions need a width divisible by 4, not {width}")
    omega = 10_000.0 ** -(torch.arange(width // 4, dtype=dtype) / (width / 4))
    angles = torch.arange(grid, dtype=dtype)[:, None] * omega  # (g, D/4)
    code = torch.cat([angles.sin(), angles.cos()], dim=1)  # (g, D/2)
    columns = code[None, :, :].expand(grid, grid, -1)  # (g, g, D/2)
    rows = code[:, None, :].expand(grid, grid, -1)  # (g, g, D/2)
    return torch.cat([columns, rows], dim=-1).reshape(1, grid * grid, width).float()


def tokens_to_map(tokens: Tensor) -> Tensor:
    """(B, N, D) to (B, D, g, g), row-major."""
    B, N, D = tokens.shape
    grid = int(N**0.5)
    return tokens.transpose(1, 2).reshape(B, D, grid, grid)


def map_to_tokens(x: Tensor) -> Tensor:
    """(B, D, g, g) to (B, N, D), row-major."""
    return x.flatten(2).transpose(1, 2)


def unpatchify(patches: Tensor, patch: int, channels: int = 3) -> Tensor:
    """Patches (B, N, p * p * C), laid out (row, column, channel), to images (B, C, S, S)."""
    B, N, _ = patches.shape
    g = int(N**0.5)
    x = patches.view(B, g, g, patch, patch, channels)  # (B, row, column, p, p, C)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(B, channels, g * patch, g * patch)


def patchify(images: Tensor, patch: int) -> Tensor:
    """Images (B, C, S, S) to patches (B, N, p * p * C); inverse of :func:`unpatchify`."""
    B, C, S, _ = images.shape
    g = S // patch
    x = images.view(B, C, g, patch, g, patch)  # (B, C, row, p, column, p)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(B, g * g, patch * patch * C)


def rms_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """x / sqrt(mean_channels(x^2) + eps), float32, of x (B, C, h, w): tokens of norm sqrt(C)."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + eps)


def cosine_gram(tokens: Tensor) -> Tensor:
    """Gram matrices (B, N, N) of l2-normalized tokens (B, N, D): the cosine of each pair.

    Float32 even under autocast: bf16 is too coarse for the difference of two Gram matrices.
    """
    with torch.autocast(tokens.device.type, enabled=False):
        unit = F.normalize(tokens.float(), dim=-1)
        return unit @ unit.mT


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's channel means and standard deviations, for values in [0, 1]."""


def imagenet_standardize(images: Tensor) -> Tensor:
    """Standardize images (B, 3, H, W) in [0, 1] by ImageNet's means and standard deviations."""
    return (images - channels(IMAGENET_MEAN, images)) / channels(IMAGENET_STD, images)
