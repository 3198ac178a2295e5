"""Names of an encoder's weights: ours, which are timm's, and those of released PAE tokenizers.

A released file uses the names of the transformers classes (version 4.57), without the last norm.
Each :class:`Same` maps some of our tensors to released ones. One table serves both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pae_encoders.families import DINOV2, DINOV3, MAE, SIGLIP2, Form
from pae_framework.errors import CheckpointError
from pae_framework.tensor_files import differences


@dataclass(frozen=True)
class Same:
    """``ours`` and ``released`` are equal after both are concatenated along ``axis``.

    ``flat``: the released tensor lacks the leading axis of length 1.
    """

    ours: tuple[str, ...]
    released: tuple[str, ...]
    axis: int = 0
    flat: bool = False


Names = Callable[[Form], list[Same]]


def to_released(state: Mapping[str, Tensor], names: Sequence[Same]) -> dict[str, Tensor]:
    """Released tensors from our state dict."""
    released = {}
    for same in names:
        joined = _join([state[name] for name in same.ours], same.axis)
        if same.flat:
            joined = joined[0]
        # Only query, key and value are split, into equal sizes.
        parts = joined.chunk(len(same.released), dim=same.axis)
        released.update({n: part.clone() for n, part in zip(same.released, parts, strict=True)})
    return released


def from_released(
    released: Mapping[str, Tensor], names: Sequence[Same], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Our state dict from released tensors.

    Args:
        released: tensors by their released names.
        names: how our names map to released ones.
        state: a state dict of ours; only its names and shapes are used.

    Raises:
        CheckpointError: lists the tensors that are missing, unexpected or of another shape.
    """
    shapes = {name: tensor.to("meta") for name, tensor in state.items()}
    if problems := differences(to_released(shapes, names), released):
        raise CheckpointError("\n  ".join(problems))
    ours = {}
    for same in names:
        joined = _join([released[name] for name in same.released], same.axis)
        if same.flat:
            joined = joined[None]
        sizes = [state[name].shape[same.axis] for name in same.ours]
        parts = joined.split(sizes, dim=same.axis)
        ours.update({n: part.clone() for n, part in zip(same.ours, parts, strict=True)})
    return ours


def _join(tensors: list[Tensor], axis: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=axis)


def _same(ours: str, released: str) -> Same:
    return Same((ours,), (released,))


def _layer(ours: str, *released: str) -> list[Same]:
    """Weight and bias of a layer."""
    return [
        Same((f"{ours}.{part}",), tuple(f"{name}.{part}" for name in released))
        for part in ("weight", "bias")
    ]


def dinov2_names(form: Form) -> list[Same]:
    """Dinov2Model, Dinov2WithRegistersModel."""
    there = "encoder.embeddings"
    positions = ("class_position", "vit.pos_embed")
    names = [
        _same("vit.cls_token", f"{there}.cls_token"),
        _same("mask_token", f"{there}.mask_token"),
        Same(positions, (f"{there}.position_embeddings",), axis=1),
        *_layer("vit.patch_embed.proj", f"{there}.patch_embeddings.projection"),
    ]
    if form.registers:
        names.append(_same("vit.reg_token", f"{there}.register_tokens"))
    inner, outer = ("weights_in", "weights_out") if form.gated else ("fc1", "fc2")
    for index in range(form.depth):
        here, there = f"vit.blocks.{index}", f"encoder.encoder.layer.{index}"
        attention = f"{there}.attention.attention"
        names += [
            *_layer(f"{here}.norm1", f"{there}.norm1"),
            *_layer(f"{here}.norm2", f"{there}.norm2"),
            *_layer(f"{here}.attn.qkv", *(f"{attention}.{x}" for x in ("query", "key", "value"))),
            *_layer(f"{here}.attn.proj", f"{there}.attention.output.dense"),
            *_layer(f"{here}.mlp.fc1", f"{there}.mlp.{inner}"),
            *_layer(f"{here}.mlp.fc2", f"{there}.mlp.{outer}"),
            _same(f"{here}.ls1.gamma", f"{there}.layer_scale1.lambda1"),
            _same(f"{here}.ls2.gamma", f"{there}.layer_scale2.lambda1"),
        ]
    return names


def dinov3_names(form: Form) -> list[Same]:
    """DINOv3ViTModel; its keys have no bias."""
    there = "encoder.embeddings"
    names = [
        _same("vit.cls_token", f"{there}.cls_token"),
        _same("mask_token", f"{there}.mask_token"),
        _same("vit.reg_token", f"{there}.register_tokens"),
        *_layer("vit.patch_embed.proj", f"{there}.patch_embeddings"),
    ]
    mlp = {"fc1": "up_proj", "fc2": "down_proj"}
    if form.gated:
        mlp = {"fc1_g": "gate_proj", "fc1_x": "up_proj", "fc2": "down_proj"}
    for index in range(form.depth):
        here, there = f"vit.blocks.{index}", f"encoder.layer.{index}"
        projections = tuple(f"{there}.attention.{x}_proj" for x in "qkv")
        names += [
            *_layer(f"{here}.norm1", f"{there}.norm1"),
            *_layer(f"{here}.norm2", f"{there}.norm2"),
            Same((f"{here}.attn.qkv.weight",), tuple(f"{name}.weight" for name in projections)),
            *_layer(f"{here}.attn.proj", f"{there}.attention.o_proj"),
            _same(f"{here}.gamma_1", f"{there}.layer_scale1.lambda1"),
            _same(f"{here}.gamma_2", f"{there}.layer_scale2.lambda1"),
        ]
        if form.biases:
            names += [
                _same(f"{here}.attn.q_bias", f"{projections[0]}.bias"),
                _same(f"{here}.attn.v_bias", f"{projections[2]}.bias"),
            ]
        for ours, name in mlp.items():
            names += _layer(f"{here}.mlp.{ours}", f"{there}.mlp.{name}")
    return names


def mae_names(form: Form) -> list[Same]:
    """ViTMAEModel."""
    there = "model.embeddings"
    positions = ("class_position", "vit.pos_embed")
    names = [
        _same("vit.cls_token", f"{there}.cls_token"),
        Same(positions, (f"{there}.position_embeddings",), axis=1),
        *_layer("vit.patch_embed.proj", f"{there}.patch_embeddings.projection"),
    ]
    for index in range(form.depth):
        here, there = f"vit.blocks.{index}", f"model.encoder.layer.{index}"
        attention = f"{there}.attention.attention"
        names += [
            *_layer(f"{here}.norm1", f"{there}.layernorm_before"),
            *_layer(f"{here}.norm2", f"{there}.layernorm_after"),
            *_layer(f"{here}.attn.qkv", *(f"{attention}.{x}" for x in ("query", "key", "value"))),
            *_layer(f"{here}.attn.proj", f"{there}.attention.output.dense"),
            *_layer(f"{here}.mlp.fc1", f"{there}.intermediate.dense"),
            *_layer(f"{here}.mlp.fc2", f"{there}.output.dense"),
        ]
    return names


def siglip2_names(form: Form) -> list[Same]:
    """SiglipVisionTransformer, with its pooling head."""
    there, pool = "encoder.embeddings", "vit.attn_pool"
    names = [
        Same(("vit.pos_embed",), (f"{there}.position_embedding.weight",), flat=True),
        *_layer("vit.patch_embed.proj", f"{there}.patch_embedding"),
        _same(f"{pool}.latent", "encoder.head.probe"),
        *_layer(f"{pool}.proj", "encoder.head.attention.out_proj"),
        *_layer(f"{pool}.norm", "encoder.head.layernorm"),
        *_layer(f"{pool}.mlp.fc1", "encoder.head.mlp.fc1"),
        *_layer(f"{pool}.mlp.fc2", "encoder.head.mlp.fc2"),
    ]
    for part in ("weight", "bias"):
        ours = (f"{pool}.q.{part}", f"{pool}.kv.{part}")
        names.append(Same(ours, (f"encoder.head.attention.in_proj_{part}",)))
    for index in range(form.depth):
        here, there = f"vit.blocks.{index}", f"encoder.encoder.layers.{index}"
        projections = [f"{there}.self_attn.{x}_proj" for x in "qkv"]
        names += [
            *_layer(f"{here}.norm1", f"{there}.layer_norm1"),
            *_layer(f"{here}.norm2", f"{there}.layer_norm2"),
            *_layer(f"{here}.attn.qkv", *projections),
            *_layer(f"{here}.attn.proj", f"{there}.self_attn.out_proj"),
            *_layer(f"{here}.mlp.fc1", f"{there}.mlp.fc1"),
            *_layer(f"{here}.mlp.fc2", f"{there}.mlp.fc2"),
        ]
    return names


NAMES: dict[str, Names] = {
    DINOV2.use: dinov2_names,
    DINOV3.use: dinov3_names,
    MAE.use: mae_names,
    SIGLIP2.use: siglip2_names,
}
"""Each family's table."""
