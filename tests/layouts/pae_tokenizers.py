"""Names and shapes in released PAE tokenizers, written down from what PAE's modules print.

PAE with transformers 4.57.1, d = 32 and the decoder ViT-L: 991 tensors with DINOv2-L, 966 with
DINOv3-L, 999 with SigLIP2-SO400M, 941 with MAE-L. Symbols: D encoder width, F its MLP width, P its
patch, N tokens its positions are learned for, d latent channels; Dd, Fd of the decoder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Size:
    """Of an encoder; ``grid``: side of its learned positions."""

    patch: int
    width: int
    depth: int
    mlp: int
    grid: int


@dataclass(frozen=True)
class Tail:
    """Of everything behind it; ``grid``: tokens per side."""

    grid: int
    latent: int
    dam_depth: int
    width: int
    depth: int
    mlp: int
    patch: int


def affine(name: str, *shape: int) -> Shapes:
    """A weight of this shape, with its bias."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def layers(prefix: str, names: Iterable[str], *shape: int) -> Shapes:
    """Several weights of one shape, with biases."""
    return {key: s for name in names for key, s in affine(f"{prefix}.{name}", *shape).items()}


@dataclass(frozen=True)
class Block:
    """What the layers of a transformer block are called."""

    norms: tuple[str, str]
    square: tuple[str, ...]
    up: str
    down: str
    scaled: bool = False

    def shapes(self, at: str, width: int, mlp: int) -> Shapes:
        scales = (1, 2) if self.scaled else ()
        return {
            **layers(at, self.norms, width),
            **layers(at, self.square, width, width),
            **{f"{at}.layer_scale{k}.lambda1": (width,) for k in scales},
            **affine(f"{at}.{self.up}", mlp, width),
            **affine(f"{at}.{self.down}", width, mlp),
        }


OLD_ATTENTION = (
    *(f"attention.attention.{matrix}" for matrix in ("query", "key", "value")),
    "attention.output.dense",
)
DINOV2 = Block(("norm1", "norm2"), OLD_ATTENTION, "mlp.fc1", "mlp.fc2", scaled=True)
DINOV3 = Block(
    ("norm1", "norm2"),
    tuple(f"attention.{matrix}_proj" for matrix in "qkvo"),
    "mlp.up_proj",
    "mlp.down_proj",
    scaled=True,
)
SIGLIP2 = Block(
    ("layer_norm1", "layer_norm2"),
    tuple(f"self_attn.{matrix}_proj" for matrix in ("q", "k", "v", "out")),
    "mlp.fc1",
    "mlp.fc2",
)
VIT_MAE = Block(
    ("layernorm_before", "layernorm_after"), OLD_ATTENTION, "intermediate.dense", "output.dense"
)
"""A block of transformers' ViT-MAE: the encoder's, and the decoder's."""


def blocks(block: Block, at: str, size: Size | Tail) -> Shapes:
    """All blocks, each under its number."""
    found = (block.shapes(f"{at}.{i}", size.width, size.mlp) for i in range(size.depth))
    return {name: shape for shapes in found for name, shape in shapes.items()}


def dinov2(size: Size) -> Shapes:
    """Dinov2WithRegistersModel without its last norm."""
    width, before = size.width, "encoder.encoder.embeddings"
    return {
        f"{before}.cls_token": (1, 1, width),
        f"{before}.mask_token": (1, width),
        f"{before}.register_tokens": (1, 4, width),
        f"{before}.position_embeddings": (1, size.grid**2 + 1, width),
        **affine(f"{before}.patch_embeddings.projection", width, 3, size.patch, size.patch),
        **blocks(DINOV2, "encoder.encoder.encoder.layer", size),
    }


def dinov3(size: Size) -> Shapes:
    """DINOv3ViTModel without its last norm; its keys have no bias."""
    width, before = size.width, "encoder.encoder.embeddings"
    shapes = {
        f"{before}.cls_token": (1, 1, width),
        f"{before}.mask_token": (1, 1, width),
        f"{before}.register_tokens": (1, 4, width),
        **affine(f"{before}.patch_embeddings", width, 3, size.patch, size.patch),
        **blocks(DINOV3, "encoder.encoder.layer", size),
    }
    return {name: shape for name, shape in shapes.items() if not name.endswith("k_proj.bias")}


def siglip2(size: Size) -> Shapes:
    """SiglipVisionTransformer without its last norm, with its pooling head."""
    width, before = size.width, "encoder.encoder.embeddings"
    head = "encoder.encoder.head"
    return {
        **affine(f"{before}.patch_embedding", width, 3, size.patch, size.patch),
        f"{before}.position_embedding.weight": (size.grid**2, width),
        f"{head}.probe": (1, 1, width),
        f"{head}.attention.in_proj_weight": (3 * width, width),
        f"{head}.attention.in_proj_bias": (3 * width,),
        **affine(f"{head}.attention.out_proj", width, width),
        **affine(f"{head}.layernorm", width),
        **affine(f"{head}.mlp.fc1", size.mlp, width),
        **affine(f"{head}.mlp.fc2", width, size.mlp),
        **blocks(SIGLIP2, "encoder.encoder.encoder.layers", size),
    }


def mae(size: Size) -> Shapes:
    """The ``vit`` of ViTMAEForPreTraining without its last norm."""
    width, before = size.width, "encoder.model.embeddings"
    return {
        f"{before}.cls_token": (1, 1, width),
        f"{before}.position_embeddings": (1, size.grid**2 + 1, width),
        **affine(f"{before}.patch_embeddings.projection", width, 3, size.patch, size.patch),
        **blocks(VIT_MAE, "encoder.model.encoder.layer", size),
    }


def modulator(size: Size, tail: Tail) -> Shapes:
    """DeltaEncoder with cross-attention and the fusion `sft`."""
    width, before = size.width, "delta_encoder"
    shapes: Shapes = {
        f"{before}.pos_embed": (1, tail.grid**2, width),
        **affine(f"{before}.patch_embed.proj", width, 3, size.patch, size.patch),
        **affine(f"{before}.fusion_proj", 2 * width, width),
        **affine(f"{before}.final_ln", width),
    }
    cross = [f"cross_attn.{part}" for part in ("q_proj", "k_proj", "v_proj", "proj")]
    for i in range(tail.dam_depth):
        block = f"{before}.layers.{i}"
        shapes |= layers(block, ("norm1", "norm2_q", "norm2_kv", "norm3"), width)
        shapes |= layers(block, (*cross, "self_attn.proj"), width, width)
        shapes |= affine(f"{block}.self_attn.qkv", 3 * width, width)
        shapes |= affine(f"{block}.mlp.fc1", 4 * width, width)
        shapes |= affine(f"{block}.mlp.fc2", width, 4 * width)
    return shapes


def compressors(size: Size, tail: Tail) -> Shapes:
    """Both 3 x 3 convolutions with their attentions, whose qkv have no bias."""
    width, pack, unpack = size.width, "latent_compressor", "latent_decompressor"
    return {
        f"{pack}.0.qkv.weight": (3 * width, width),
        **affine(f"{pack}.0.proj", width, width),
        **affine(f"{pack}.1", tail.latent, width, 3, 3),
        **affine(f"{unpack}.0", width, tail.latent, 3, 3),
        f"{unpack}.1.qkv.weight": (3 * width, width),
        **affine(f"{unpack}.1.proj", width, width),
    }


def decoder(size: Size, tail: Tail) -> Shapes:
    """GeneralDecoder."""
    width, before = tail.width, "decoder"
    return {
        f"{before}.decoder_pos_embed": (1, tail.grid**2 + 1, width),
        f"{before}.trainable_cls_token": (1, 1, width),
        **affine(f"{before}.decoder_embed", width, size.width),
        **affine(f"{before}.decoder_norm", width),
        **affine(f"{before}.decoder_pred", 3 * tail.patch**2, width),
        **blocks(VIT_MAE, f"{before}.decoder_layers", tail),
    }


ENCODERS = {"dinov2": dinov2, "dinov3": dinov3, "siglip2": siglip2, "mae": mae}


FULL = {
    # family: model, its size, number of tensors of a whole file
    "dinov2": ("vit_large_patch14_reg4_dinov2", Size(14, 1024, 24, 4096, 37), 991),
    "dinov3": ("vit_large_patch16_dinov3", Size(16, 1024, 24, 4096, 0), 966),
    "siglip2": ("ViT-SO400M-16-SigLIP2-256", Size(16, 1152, 27, 4304, 16), 999),
    "mae": ("vit_large_patch16_224", Size(16, 1024, 24, 4096, 14), 941),
}
FULL_TAIL = Tail(grid=16, latent=32, dam_depth=6, width=1024, depth=24, mlp=4096, patch=16)
"""The sizes that were released."""


def released_shapes(family: str, size: Size, tail: Tail) -> Shapes:
    """The whole file."""
    rest = (modulator(size, tail), compressors(size, tail), decoder(size, tail))
    return {**ENCODERS[family](size), **rest[0], **rest[1], **rest[2]}


def random_tensors(shapes: Shapes, seed: int) -> dict[str, Tensor]:
    """Different numbers in every tensor, of about the size weights have."""
    random = torch.Generator().manual_seed(seed)
    return {
        name: torch.empty(shape).uniform_(-0.05, 0.05, generator=random)
        for name, shape in shapes.items()
    }
