"""LightningDiT and DiT-DH written out as formulas on named weights, in float64, for comparison.

Nothing is shared with the package: sums and products of tensors, rotations as complex numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

State = dict[str, Tensor]


def lightningdit(w: State, x: Tensor, t: Tensor, y: Tensor, heads: int, patch: int = 1) -> Tensor:
    """Velocity of LightningDiT; which flags are on shows in the names of the weights."""
    w = {name: value.double() for name, value in w.items()}
    _, channels, side, _ = x.shape
    grid = side // patch
    tokens = patches(x.double(), patch) @ flat(w["x_embedder.proj.weight"]).T
    tokens = tokens + w["x_embedder.proj.bias"]
    if "pos_embed" in w:
        tokens = tokens + positions(grid, tokens.shape[-1])
    condition = (time(w, t.double()) + w["y_embedder.embedding_table.weight"][y])[:, None]
    rope = grid if "feat_rope.freqs_cos" in w else None
    for index in range(depth(w)):
        tokens = block(w, f"blocks.{index}.", tokens, condition, heads, rope)
    return maps(final(w, tokens, condition), grid, patch)[:, :channels]


def dit_dh(
    w: State, x: Tensor, t: Tensor, y: Tensor, encoder_depth: int, heads: tuple[int, int]
) -> Tensor:
    """Velocity of DiT-DH in RAE's time (0 data, 1 noise) and direction; patch 1."""
    w = {name: value.double() for name, value in w.items()}
    pixels, grid = patches(x.double(), 1), x.shape[-1]
    te = time(w, t.double())
    ye = w["y_embedder.embedding_table.weight"][y]
    c = silu(te + ye)[:, None]
    s = linear(w, "s_embedder.proj.", pixels)
    s = s + positions(grid, s.shape[-1])
    for index in range(encoder_depth):
        s = block(w, f"blocks.{index}.", s, c, heads[0], grid)
    s = silu(te[:, None] + s)
    if "s_projector.weight" in w:
        s = linear(w, "s_projector.", s)
    h = linear(w, "x_embedder.proj.", pixels)
    for index in range(encoder_depth, depth(w)):
        h = block(w, f"blocks.{index}.", h, s, heads[1], grid)
    return maps(final(w, h, s), grid, 1)


def block(w: State, at: str, x: Tensor, c: Tensor, heads: int, rope: int | None) -> Tensor:
    """One adaLN-Zero block; without shifts where the modulation has four parts."""
    width = x.shape[-1]
    parts = linear(w, f"{at}adaLN_modulation.1.", silu(c)).split(width, dim=-1)
    if len(parts) == 4:
        zero = torch.zeros_like(parts[0])
        parts = (zero, parts[0], parts[1], zero, parts[2], parts[3])
    shift1, scale1, gate1, shift2, scale2, gate2 = parts
    h = norm(x, w.get(f"{at}norm1.weight")) * (1 + scale1) + shift1
    x = x + gate1 * attention(w, f"{at}attn.", h, heads, rope)
    h = norm(x, w.get(f"{at}norm2.weight")) * (1 + scale2) + shift2
    return x + gate2 * mlp(w, f"{at}mlp.", h)


def attention(w: State, at: str, x: Tensor, heads: int, rope: int | None) -> Tensor:
    """Softmax attention, head after head."""
    width = x.shape[-1]
    size = width // heads
    rows = linear(w, f"{at}qkv.", x)
    out = []
    for head in range(heads):
        q, k, v = (
            rows[..., part * width + head * size : part * width + (head + 1) * size]
            for part in range(3)
        )
        if f"{at}q_norm.weight" in w:
            q, k = (head_norm(w, f"{at}{n}_norm.", u) for n, u in (("q", q), ("k", k)))
        if rope is not None:
            q, k = turn(q, rope), turn(k, rope)
        weights = (q @ k.transpose(1, 2) / math.sqrt(size)).exp()
        out.append(weights / weights.sum(dim=-1, keepdim=True) @ v)
    return linear(w, f"{at}proj.", torch.cat(out, dim=-1))


def turn(u: Tensor, grid: int) -> Tensor:
    """Rotary positions: pairs as complex numbers, by the row in the first half, then the column."""
    pairs = torch.view_as_complex(u.unflatten(-1, (-1, 2)).contiguous())
    each = pairs.shape[-1] // 2
    angles = torch.empty(grid * grid, 2 * each, dtype=torch.float64)
    for row in range(grid):
        for column in range(grid):
            for j in range(each):
                f = 10_000 ** (-2 * j / (2 * each))
                angles[row * grid + column, j] = row * f
                angles[row * grid + column, each + j] = column * f
    return torch.view_as_real(pairs * torch.exp(1j * angles)).flatten(-2)


def mlp(w: State, at: str, x: Tensor) -> Tensor:
    """SwiGLU, or GELU in its tanh form."""
    if f"{at}w12.weight" in w:
        both = linear(w, f"{at}w12.", x)
        half = both.shape[-1] // 2
        return linear(w, f"{at}w3.", silu(both[..., :half]) * both[..., half:])
    h = linear(w, f"{at}fc1.", x)
    h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    return linear(w, f"{at}fc2.", h)


def final(w: State, x: Tensor, c: Tensor) -> Tensor:
    """Final norm, modulation and projection."""
    width = x.shape[-1]
    both = linear(w, "final_layer.adaLN_modulation.1.", silu(c))
    shift, scale = both[..., :width], both[..., width:]
    h = norm(x, w.get("final_layer.norm_final.weight")) * (1 + scale) + shift
    return linear(w, "final_layer.linear.", h)


def time(w: State, t: Tensor) -> Tensor:
    """Sinusoids of raw t, cosines first; or RAE's Gaussian frequencies, sines first."""
    if "t_embedder.W" in w:
        angles = 2 * math.pi * t[:, None] * w["t_embedder.W"]
        code = torch.cat([angles.sin(), angles.cos()], dim=1)
    else:
        frequencies = [math.exp(-math.log(10_000) * i / 128) for i in range(128)]
        angles = t[:, None] * torch.tensor(frequencies, dtype=torch.float64)
        code = torch.cat([angles.cos(), angles.sin()], dim=1)
    return linear(w, "t_embedder.mlp.2.", silu(linear(w, "t_embedder.mlp.0.", code)))


def positions(grid: int, width: int) -> Tensor:
    """Fixed positions: code of the column, then of the row, each [sin, cos]."""
    quarter = width // 4
    omega = [10_000 ** (-k / quarter) for k in range(quarter)]

    def code(m: int) -> list[float]:
        return [math.sin(m * o) for o in omega] + [math.cos(m * o) for o in omega]

    rows = [code(column) + code(row) for row in range(grid) for column in range(grid)]
    return torch.tensor(rows, dtype=torch.float64)


def norm(x: Tensor, weight: Tensor | None) -> Tensor:
    """RMSNorm where there is a weight, else LayerNorm without affine; eps 1e-6."""
    if weight is not None:
        return x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * weight
    return standard(x, 1e-6)


def head_norm(w: State, at: str, u: Tensor) -> Tensor:
    """Norm of queries or keys: RMSNorm, or LayerNorm with affine and eps 1e-5."""
    if f"{at}bias" in w:
        return standard(u, 1e-5) * w[f"{at}weight"] + w[f"{at}bias"]
    return norm(u, w[f"{at}weight"])


def standard(x: Tensor, eps: float) -> Tensor:
    """Zero mean, unit (biased) variance."""
    centered = x - x.mean(dim=-1, keepdim=True)
    return centered / (centered.square().mean(dim=-1, keepdim=True) + eps).sqrt()


def patches(x: Tensor, patch: int) -> Tensor:
    """(B, C, S, S) to (B, N, C * p * p), channel slowest, as a convolution's weight lies."""
    _, _, side, _ = x.shape
    cut = [
        x[:, :, row : row + patch, column : column + patch].flatten(1)
        for row in range(0, side, patch)
        for column in range(0, side, patch)
    ]
    return torch.stack(cut, dim=1)


def maps(tokens: Tensor, grid: int, patch: int) -> Tensor:
    """(B, N, p * p * C), channel fastest, to (B, C, S, S)."""
    B, _, size = tokens.shape
    channels, side = size // patch**2, grid * patch
    out = torch.empty(B, channels, side, side, dtype=tokens.dtype)
    for n in range(grid * grid):
        row, column = n // grid * patch, n % grid * patch
        square = tokens[:, n].view(B, patch, patch, channels).permute(0, 3, 1, 2)
        out[:, :, row : row + patch, column : column + patch] = square
    return out


def linear(w: State, at: str, x: Tensor) -> Tensor:
    """x W^T + b."""
    return x @ flat(w[f"{at}weight"]).T + w[f"{at}bias"]


def silu(x: Tensor) -> Tensor:
    """x / (1 + exp(-x))."""
    return x / (1 + torch.exp(-x))


def flat(weight: Tensor) -> Tensor:
    """A convolution's weight as a linear layer's."""
    return weight.flatten(1)


def depth(w: State) -> int:
    """Number of blocks."""
    return len({name.split(".")[1] for name in w if name.startswith("blocks.")})
