"""Read pretrained weights of any common layout, with the names of our encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from pathlib import Path

import torch
from torch import Tensor

from pae_encoders.families import DINOV2, DINOV3, MAE, Family, Form
from pae_encoders.transformers_names import Same, from_released
from pae_framework.errors import CheckpointError
from pae_framework.weight_files import read_checkpoint

TIMM_EMBEDDING = "patch_embed.proj.weight"
"""A weight in files with timm's or Meta's names."""
TRANSFORMERS_EMBEDDINGS = (
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embeddings.weight",
    "embeddings.patch_embedding.weight",
)
"""Names of the same weight in transformers' classes."""
POSITIONS = (
    "pos_embed",
    "embeddings.position_embeddings",
    "embeddings.position_embedding.weight",
)
"""Learned positions in timm's and Meta's files, and in transformers'."""
LAST_NORM = ("norm.", "fc_norm.", "layernorm.", "post_layernorm.")
"""The last norm, whose affine part is dropped."""
NOT_WEIGHTS = ("head.", "rope.", "rope_embed.", "projectors.", "local_cls_norm.")
"""Classifiers, computed tables and training heads in timm's and Meta's files."""

META = {
    DINOV2.use: {"register_tokens": "reg_token", ".mlp.w12.": ".mlp.fc1.", ".mlp.w3.": ".mlp.fc2."},
    DINOV3.use: {
        "storage_tokens": "reg_token",
        ".ls1.gamma": ".gamma_1",
        ".ls2.gamma": ".gamma_2",
        ".mlp.w1.": ".mlp.fc1_g.",
        ".mlp.w2.": ".mlp.fc1_x.",
        ".mlp.w3.": ".mlp.fc2.",
    },
}
"""Names in Meta's own files, and timm's names for them."""

Tensors = dict[str, Tensor]


def read_pretrained(
    path: Path, family: Family, form: Form, names: Sequence[Same], state: Mapping[str, Tensor]
) -> Tensors:
    """The weights of a file, with the names of an encoder's state dict; their shapes may differ.

    Layouts: timm; open-clip (the image tower); transformers; Meta's DINOv2, DINOv3 and MAE, as
    released or as their trainings save them (the teacher).

    Args:
        path: the file, the index of several, or the folder of either.
        family: the encoder's.
        form: the size of the encoder.
        names: how the encoder's names map to those of its transformers class.
        state: the encoder's state dict.

    Raises:
        CheckpointError: the file cannot be read, its positions are for another grid, or it has
            transformers' layout and is for another network; lists the differences.
    """
    found = read_checkpoint(path, "average", (TIMM_EMBEDDING, *TRANSFORMERS_EMBEDDINGS))
    _require_grid(found, form, path)
    if any("embeddings." in name for name in found):
        return _from_transformers(found, family, names, state, path)
    if "mask_token" in state and "mask_token" in found:
        found = _from_meta(found, family.use)
    return _from_timm(found, state)


def _require_grid(found: Tensors, form: Form, path: Path) -> None:
    """Reject positions that were learned for another grid; says which size has that grid."""
    positions = next((found[name] for name in POSITIONS if name in found), None)
    if positions is None or positions.ndim < 2 or not form.grid:
        return
    tokens = positions.shape[-2]
    grids = {isqrt(n) for n in (tokens, tokens - form.class_position) if isqrt(n) ** 2 == n > 0}
    if not grids or form.grid in grids:
        return
    size = f"width: {form.width}, depth: {form.depth}, heads: {form.heads}, "
    size += f"mlp_ratio: {form.mlp / form.width}, grid: {max(grids)}"
    raise CheckpointError(
        f"{path}: its positions were learned for {max(grids)} x {max(grids)} tokens, those of the "
        f"encoder for {form.grid} x {form.grid}; set the encoder's size={{{size}}} (they are "
        "resized to the tokens of the input)"
    )


def _from_transformers(
    found: Tensors, family: Family, names: Sequence[Same], state: Mapping[str, Tensor], path: Path
) -> Tensors:
    released = "model." if family is MAE else "encoder."
    named = {released + n: t for n, t in found.items() if not n.startswith(LAST_NORM)}
    try:
        return from_released(named, names, state)
    except CheckpointError as error:
        raise CheckpointError(f"{path} does not fit:\n  {error}") from error


def _from_meta(found: Tensors, family: str) -> Tensors:
    """timm's names for Meta's tensors. DINOv3's fused bias is split; its key part is zero."""
    renamed = {}
    for name, tensor in found.items():
        for meta, timm in META[family].items():
            name = name.replace(meta, timm)
        if family == DINOV3.use and name.endswith(".qkv.bias") and tensor.numel() >= 3:
            stem = name.removesuffix("qkv.bias")
            renamed[f"{stem}q_bias"], _, renamed[f"{stem}v_bias"] = tensor.tensor_split(3)
        elif not name.endswith(".bias_mask"):
            renamed[name] = tensor
    return renamed


def _from_timm(found: Tensors, state: Mapping[str, Tensor]) -> Tensors:
    """Our names for timm's tensors, and zeros for those that its files omit."""
    kept = {n: t for n, t in found.items() if not n.startswith((*LAST_NORM, *NOT_WEIGHTS))}
    mask_token, positions = kept.pop("mask_token", None), kept.get("pos_embed")
    ours = {f"vit.{name}": tensor for name, tensor in kept.items()}
    with_class = state["vit.pos_embed"].shape[1] + 1 if "class_position" in state else None
    if positions is not None and positions.ndim == 3 and positions.shape[1] == with_class:
        ours["class_position"], ours["vit.pos_embed"] = positions[:, :1], positions[:, 1:]
    if mask_token is not None:  # (1, D) or (1, 1, D)
        axes = state.get("mask_token", mask_token).ndim
        ours["mask_token"] = mask_token.reshape((1,) * (axes - 1) + (-1,))
    return {**_zeros(state, ours), **ours}


def _zeros(state: Mapping[str, Tensor], found: Tensors) -> Tensors:
    """Zeros for the tensors that timm's files lack.

    timm adds the class token's position to the class token, drops the mask token, and omits the
    biases of DINOv3, whose published values are zero.
    """
    names = {"class_position", "mask_token"}
    if not any(name.endswith(".q_bias") for name in found):
        names |= {name for name in state if name.endswith((".q_bias", ".v_bias"))}
    return {name: torch.zeros_like(state[name]) for name in names if name in state}
