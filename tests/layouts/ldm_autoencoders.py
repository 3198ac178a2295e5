"""Latent diffusion's KL autoencoder, from its formulas: names, shapes and forward passes.

Independent of the code under test. Random weights; the released files are not at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """What latent diffusion's configs call ch, ch_mult, num_res_blocks, z_channels; and the levels
    whose resolution is in attn_resolutions."""

    ch: int = 32
    ch_mult: tuple[int, ...] = (1, 2)
    blocks: int = 1
    attn_levels: tuple[int, ...] = (1,)
    z: int = 4


def _conv(name: str, inputs: int, outputs: int, side: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outputs, inputs, side, side)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _resnet(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _norm(f"{name}.norm1", inputs)
    yield from _conv(f"{name}.conv1", inputs, outputs, 3)
    yield from _norm(f"{name}.norm2", outputs)
    yield from _conv(f"{name}.conv2", outputs, outputs, 3)
    if inputs != outputs:
        yield from _conv(f"{name}.nin_shortcut", inputs, outputs, 1)


def _attention(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _norm(f"{name}.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        yield from _conv(f"{name}.{part}", width, width, 1)


def _middle(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _resnet(f"{name}.block_1", width, width)
    yield from _attention(f"{name}.attn_1", width)
    yield from _resnet(f"{name}.block_2", width, width)


def shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor."""
    return dict(_names(shape))


def _names(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    widths, last = [shape.ch * m for m in shape.ch_mult], len(shape.ch_mult) - 1
    yield from _conv("encoder.conv_in", 3, shape.ch, 3)
    width = shape.ch
    for level, out in enumerate(widths):
        for block in range(shape.blocks):
            yield from _resnet(f"encoder.down.{level}.block.{block}", width, out)
            width = out
            if level in shape.attn_levels:
                yield from _attention(f"encoder.down.{level}.attn.{block}", width)
        if level != last:
            yield from _conv(f"encoder.down.{level}.downsample.conv", width, width, 3)
    yield from _middle("encoder.mid", width)
    yield from _norm("encoder.norm_out", width)
    yield from _conv("encoder.conv_out", width, 2 * shape.z, 3)
    yield from _conv("quant_conv", 2 * shape.z, 2 * shape.z, 1)
    yield from _conv("post_quant_conv", shape.z, shape.z, 1)
    yield from _conv("decoder.conv_in", shape.z, width, 3)
    yield from _middle("decoder.mid", width)
    for level in range(last, -1, -1):
        for block in range(shape.blocks + 1):
            yield from _resnet(f"decoder.up.{level}.block.{block}", width, widths[level])
            width = widths[level]
            if level in shape.attn_levels:
                yield from _attention(f"decoder.up.{level}.attn.{block}", width)
        if level:
            yield from _conv(f"decoder.up.{level}.upsample.conv", width, width, 3)
    yield from _norm("decoder.norm_out", width)
    yield from _conv("decoder.conv_out", width, 3, 3)


def random_weights(shape: Shape, seed: int = 0) -> dict[str, Tensor]:
    """Random weights of a file, scaled so that values stay of order one."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, size in shapes(shape).items():
        scale = 1.0 if len(size) == 1 else (size[1] * size[2] * size[3]) ** -0.5
        weights[name] = scale * torch.randn(size, generator=generator)
    return weights


class Reference:
    """The forward passes of latent diffusion, from the weights of a file by their names."""

    def __init__(self, weights: dict[str, Tensor]):
        self.weights = weights

    def moments(self, pixels: Tensor) -> Tensor:
        """Mean and log-variance (B, 2z, h, w) of pixels (B, 3, S, S) in [-1, 1]."""
        x = self._conv(pixels, "encoder.conv_in", padding=1)
        level = 0
        while self._has(f"encoder.down.{level}."):
            x = self._level(x, f"encoder.down.{level}")
            if self._has(f"encoder.down.{level}.downsample."):
                padded = F.pad(x, (0, 1, 0, 1), mode="constant", value=0)
                x = self._conv(padded, f"encoder.down.{level}.downsample.conv", stride=2)
            level += 1
        x = self._end(self._middle(x, "encoder.mid"), "encoder")
        return self._conv(x, "quant_conv")

    def pixels(self, z: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) of latents (B, z, h, w)."""
        x = self._conv(self._conv(z, "post_quant_conv"), "decoder.conv_in", padding=1)
        x = self._middle(x, "decoder.mid")
        level = max(int(name.split(".")[2]) for name in self.weights if "decoder.up." in name)
        for index in range(level, -1, -1):
            x = self._level(x, f"decoder.up.{index}")
            if self._has(f"decoder.up.{index}.upsample."):
                x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                x = self._conv(x, f"decoder.up.{index}.upsample.conv", padding=1)
        return self._end(x, "decoder")

    def _level(self, x: Tensor, name: str) -> Tensor:
        block = 0
        while self._has(f"{name}.block.{block}."):
            x = self._resnet(x, f"{name}.block.{block}")
            if self._has(f"{name}.attn.{block}."):
                x = self._attention(x, f"{name}.attn.{block}")
            block += 1
        return x

    def _middle(self, x: Tensor, name: str) -> Tensor:
        x = self._resnet(x, f"{name}.block_1")
        return self._resnet(self._attention(x, f"{name}.attn_1"), f"{name}.block_2")

    def _end(self, x: Tensor, name: str) -> Tensor:
        return self._conv(self._swish(x, f"{name}.norm_out"), f"{name}.conv_out", padding=1)

    def _resnet(self, x: Tensor, name: str) -> Tensor:
        inner = self._conv(self._swish(x, f"{name}.norm1"), f"{name}.conv1", padding=1)
        inner = self._conv(self._swish(inner, f"{name}.norm2"), f"{name}.conv2", padding=1)
        if self._has(f"{name}.nin_shortcut."):
            x = self._conv(x, f"{name}.nin_shortcut")
        return x + inner

    def _attention(self, x: Tensor, name: str) -> Tensor:
        normed = self._norm(x, f"{name}.norm")
        q, k, v = (self._conv(normed, f"{name}.{part}").flatten(2) for part in "qkv")  # (B, C, n)
        scores = torch.einsum("bci,bcj->bij", q, k) / q.shape[1] ** 0.5
        attended = torch.einsum("bij,bcj->bci", scores.softmax(dim=-1), v).reshape(x.shape)
        return x + self._conv(attended, f"{name}.proj_out")

    def _swish(self, x: Tensor, norm: str) -> Tensor:
        normed = self._norm(x, norm)
        return normed * torch.sigmoid(normed)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        grouped = x.reshape(len(x), 32, -1)
        mean, var = grouped.mean(2, keepdim=True), grouped.var(2, unbiased=False, keepdim=True)
        normed = ((grouped - mean) / (var + 1e-6).sqrt()).reshape(x.shape)
        weight, bias = (self.weights[f"{name}.{part}"] for part in ("weight", "bias"))
        return normed * weight[:, None, None] + bias[:, None, None]

    def _conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        weight, bias = (self.weights[f"{name}.{part}"] for part in ("weight", "bias"))
        return F.conv2d(x, weight, bias, stride=stride, padding=padding)

    def _has(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.weights)
