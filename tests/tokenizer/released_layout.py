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


def dinov2(size: Size) -> Shapes:
    """Dinov2WithRegistersModel without its last norm."""
    width, before = size.width, "encoder.encoder.embeddings"
    shapes: Shapes = {
        f"{before}.cls_token": (1, 1, width),
        f"{before}.mask_token": (1, width),
        f"{before}.register_tokens": (1, 4, width),
        f"{before}.position_embeddings": (1, size.grid**2 + 1, width),
        **affine(f"{before}.patch_embeddings.projection", width, 3, size.patch, size.patch),
    }
    square = [f"attention.attention.{part}" for part in ("query", "key", "value")]
    for i in range(size.depth):
        block = f"encoder.encoder.encoder.layer.{i}"
        shapes |= layers(block, ("norm1", "norm2"), width)
        shapes |= layers(block, (*square, "attention.output.dense"), width, width)
        shapes |= {f"{block}.layer_scale{k}.lambda1": (width,) for k in (1, 2)}
        shapes |= affine(f"{block}.mlp.fc1", size.mlp, width)
        shapes |= affine(f"{block}.mlp.fc2", width, size.mlp)
    return shapes


def dinov3(size: Size) -> Shapes:
    """DINOv3ViTModel without its last norm."""
    width, before = size.width, "encoder.encoder.embeddings"
    shapes: Shapes = {
        f"{before}.cls_token": (1, 1, width),
        f"{before}.mask_token": (1, 1, width),
        f"{before}.register_tokens": (1, 4, width),
        **affine(f"{before}.patch_embeddings", width, 3, size.patch, size.patch),
    }
    for i in range(size.depth):
        block = f"encoder.encoder.layer.{i}"
        square = [f"attention.{part}_proj" for part in "qvo"]
        shapes |= layers(block, ("norm1", "norm2"), width)
        shapes |= layers(block, square, width, width)
        shapes |= {f"{block}.attention.k_proj.weight": (width, width)}
        shapes |= {f"{block}.layer_scale{k}.lambda1": (width,) for k in (1, 2)}
        shapes |= affine(f"{block}.mlp.up_proj", size.mlp, width)
        shapes |= affine(f"{block}.mlp.down_proj", width, size.mlp)
    return shapes


def siglip2(size: Size) -> Shapes:
    """SiglipVisionTransformer without its last norm, with its pooling head."""
    width, before = size.width, "encoder.encoder.embeddings"
    head = "encoder.encoder.head"
    shapes: Shapes = {
        **affine(f"{before}.patch_embedding", width, 3, size.patch, size.patch),
        f"{before}.position_embedding.weight": (size.grid**2, width),
        f"{head}.probe": (1, 1, width),
        f"{head}.attention.in_proj_weight": (3 * width, width),
        f"{head}.attention.in_proj_bias": (3 * width,),
        **affine(f"{head}.attention.out_proj", width, width),
        **affine(f"{head}.layernorm", width),
        **affine(f"{head}.mlp.fc1", size.mlp, width),
        **affine(f"{head}.mlp.fc2", width, size.mlp),
    }
    square = [f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")]
    for i in range(size.depth):
        block = f"encoder.encoder.encoder.layers.{i}"
        shapes |= layers(block, ("layer_norm1", "layer_norm2"), width)
        shapes |= layers(block, square, width, width)
        shapes |= affine(f"{block}.mlp.fc1", size.mlp, width)
        shapes |= affine(f"{block}.mlp.fc2", width, size.mlp)
    return shapes


def mae(size: Size) -> Shapes:
    """The ``vit`` of ViTMAEForPreTraining without its last norm."""
    width, before = size.width, "encoder.model.embeddings"
    shapes: Shapes = {
        f"{before}.cls_token": (1, 1, width),
        f"{before}.position_embeddings": (1, size.grid**2 + 1, width),
        **affine(f"{before}.patch_embeddings.projection", width, 3, size.patch, size.patch),
    }
    for i in range(size.depth):
        shapes |= vit_mae_layer(f"encoder.model.encoder.layer.{i}", width, size.mlp)
    return shapes


def vit_mae_layer(block: str, width: int, mlp: int) -> Shapes:
    """A block of transformers' ViT-MAE: the encoder's, and the decoder's."""
    square = [f"attention.attention.{part}" for part in ("query", "key", "value")]
    return {
        **layers(block, ("layernorm_before", "layernorm_after"), width),
        **layers(block, (*square, "attention.output.dense"), width, width),
        **affine(f"{block}.intermediate.dense", mlp, width),
        **affine(f"{block}.output.dense", width, mlp),
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
    shapes: Shapes = {
        f"{before}.decoder_pos_embed": (1, tail.grid**2 + 1, width),
        f"{before}.trainable_cls_token": (1, 1, width),
        **affine(f"{before}.decoder_embed", width, size.width),
        **affine(f"{before}.decoder_norm", width),
        **affine(f"{before}.decoder_pred", 3 * tail.patch**2, width),
    }
    for i in range(tail.depth):
        shapes |= vit_mae_layer(f"{before}.decoder_layers.{i}", width, tail.mlp)
    return shapes


ENCODERS = {"dinov2": dinov2, "dinov3": dinov3, "siglip2": siglip2, "mae": mae}


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
