"""Read pretrained weights of any common layout, with the names of our encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pae_encoders.families import DINOV2, DINOV3, MAE, Family
from pae_encoders.transformers_names import Same, from_released
from pae_framework.errors import CheckpointError
from pae_framework.tensor_files import read_checkpoint

OPEN_CLIP = "visual.trunk."
"""Prefix of the image tower's names in open-clip's files of timm towers."""
TRANSFORMERS = ("vision_model.", "vit.", "dinov2.", "dinov2_with_registers.", "dinov3_vit.")
"""Prefixes of the encoder's names in transformers' files of larger models."""
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
    path: Path, family: Family, names: Sequence[Same], state: Mapping[str, Tensor]
) -> Tensors:
    """The weights of a file, with the names of an encoder's state dict; their shapes may differ.

    Layouts: timm; open-clip (the image tower); transformers; Meta's DINOv2, DINOv3 and MAE.

    Args:
        path: the file.
        family: the encoder's.
        names: how the encoder's names map to those of its transformers class.
        state: the encoder's state dict.

    Raises:
        CheckpointError: the file cannot be read, or it has transformers' layout and is for another
            network; lists the differences.
    """
    found = read_checkpoint(path, ("model", "state_dict", "teacher"))
    if tower := _after(found, OPEN_CLIP):
        return _from_timm(tower, state)
    if any("embeddings." in name for name in found):
        return _from_transformers(found, family, names, state, path)
    if "mask_token" in state and "mask_token" in found:
        found = _from_meta(found, family.use)
    return _from_timm(found, state)


def _after(tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
    """Tensors whose names begin with ``prefix``, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _from_transformers(
    found: Tensors, family: Family, names: Sequence[Same], state: Mapping[str, Tensor], path: Path
) -> Tensors:
    for prefix in TRANSFORMERS:
        if part := _after(found, prefix):
            found = part
            break
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
        if family == DINOV3.use and name.endswith(".qkv.bias"):
            stem = name.removesuffix("qkv.bias")
            renamed[f"{stem}q_bias"], _, renamed[f"{stem}v_bias"] = tensor.chunk(3)
        elif not name.endswith(".bias_mask"):
            renamed[name] = tensor
    return renamed


def _from_timm(found: Tensors, state: Mapping[str, Tensor]) -> Tensors:
    """Our names for timm's tensors, and zeros for those that its files omit."""
    kept = {n: t for n, t in found.items() if not n.startswith((*LAST_NORM, *NOT_WEIGHTS))}
    mask_token, positions = kept.pop("mask_token", None), kept.get("pos_embed")
    ours = {f"vit.{name}": tensor for name, tensor in kept.items()}
    with_class = state["vit.pos_embed"].shape[1] + 1 if "class_position" in state else None
    if positions is not None and positions.shape[1] == with_class:
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
