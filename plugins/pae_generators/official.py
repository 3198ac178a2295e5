"""Check official weights (LightningDiT, GAE, PAE, RAE), and describe those of another network.

Names in our state dicts are the official ones, so no name is translated. Names, shapes and values
are checked. If they do not fit, the error describes the network they belong to, so that the recipe
can be corrected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from pae_framework.errors import CheckpointError
from pae_framework.tensor_files import cast_like, differences
from pae_generators.presets import DH_PRESETS, PRESETS, Architecture


def check_official(
    expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Check that tensors fit a state dict and convert them to its types.

    Raises:
        CheckpointError: names or shapes differ (describes the network that the weights belong to),
            or a value is not finite.
    """
    if problems := differences(expected, tensors):
        raise CheckpointError(
            f"these are weights of {describe(tensors)}; the recipe's network is "
            f"{describe(expected)}:\n  " + "\n  ".join(problems)
        )
    try:
        return cast_like(expected, tensors, "the file")
    except CheckpointError as error:
        raise CheckpointError(f"{error}; their training diverged or the file is damaged") from error


def describe(tensors: Mapping[str, Tensor]) -> str:
    """Describe the network that weights belong to, by their names and shapes."""
    try:
        return _describe(tensors)
    except (KeyError, IndexError, ValueError, TypeError, ZeroDivisionError):
        return "another kind of network"


def _describe(tensors: Mapping[str, Tensor]) -> str:
    wide_head = "s_embedder.proj.weight" in tensors
    first = tensors["s_embedder.proj.weight" if wide_head else "x_embedder.proj.weight"]
    _, channels, patch, _ = first.shape
    classes = len(tensors["y_embedder.embedding_table.weight"]) - 1
    groups = _block_groups(tensors)
    size = _dh_name(groups) if wide_head else _lightningdit_name(groups[0], patch)
    tokens = _tokens(tensors)
    side = f" {round(tokens**0.5) * patch} x {round(tokens**0.5) * patch}" if tokens else ""
    latents = f"latents of {channels}{' x' if side else ' channels'}{side}"
    labels = f"{classes} classes" if classes else "no labels"
    return f"{size}, for {latents} and {labels}, with {_flags(tensors)}"


@dataclass(frozen=True)
class _Blocks:
    """Consecutive blocks of one width; ``heads`` is 0 if unknown."""

    depth: int
    width: int
    heads: int


def _block_groups(tensors: Mapping[str, Tensor]) -> list[_Blocks]:
    """Blocks by width: those of the encoder, then those of the head. Rotary tables give heads."""
    widths: list[int] = []
    while (key := f"blocks.{len(widths)}.attn.proj.weight") in tensors:
        widths.append(len(tensors[key]))
    ropes = ("feat_rope", "enc_feat_rope"), ("dec_feat_rope",)
    groups: list[_Blocks] = []
    for names, width in zip(ropes, dict.fromkeys(widths), strict=False):
        tables = [tensors[k] for n in names if (k := f"{n}.freqs_cos") in tensors]
        heads = width // tables[0].shape[1] if tables else 0
        groups.append(_Blocks(widths.count(width), width, heads))
    return groups


def _has_size(blocks: _Blocks, size: Architecture) -> bool:
    heads = blocks.heads in (0, size.heads)
    return heads and (blocks.depth, blocks.width) == (size.depth, size.width)


def _lightningdit_name(blocks: _Blocks, patch: int) -> str:
    for name, size in PRESETS.items():
        if _has_size(blocks, size) and size.patch == patch:
            return f"LightningDiT {name}"
    return f"a LightningDiT of {_size_text(blocks)} and patch {patch}"


def _dh_name(groups: list[_Blocks]) -> str:
    for name, size in DH_PRESETS.items():
        sizes = (size.encoder, size.head)
        if len(groups) == 2 and all(map(_has_size, groups, sizes)):
            return f"DiT-DH {name}"
    return f"a DiT-DH of {' and '.join(map(_size_text, groups))}"


def _size_text(blocks: _Blocks) -> str:
    heads = f" and {blocks.heads} heads" if blocks.heads else ""
    return f"{blocks.depth} blocks of width {blocks.width}{heads}"


def _tokens(tensors: Mapping[str, Tensor]) -> int:
    if "pos_embed" in tensors:
        return tensors["pos_embed"].shape[1]
    tables = [value for name, value in tensors.items() if name.endswith("rope.freqs_cos")]
    return len(tables[0]) if tables else 0


def _flags(tensors: Mapping[str, Tensor]) -> str:
    width = len(tensors["blocks.0.attn.proj.weight"])
    flags = {
        "qk_norm": "blocks.0.attn.q_norm.weight" in tensors,
        "mlp": "swiglu" if "blocks.0.mlp.w12.weight" in tensors else "gelu",
        "norm": "rms" if "blocks.0.norm1.weight" in tensors else "layer",
        "rope": any("rope." in name for name in tensors),
        "absolute_positions": "pos_embed" in tensors,
        "adaln_shift": len(tensors["blocks.0.adaLN_modulation.1.weight"]) == 6 * width,
    }
    # As a recipe writes them.
    return ", ".join(f"{key}: {str(value).lower()}" for key, value in flags.items())
