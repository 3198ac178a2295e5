"""Official weights (LightningDiT, GAE, PAE, RAE): do they fit, and if not, what are they?

Names in our state dicts are the official ones, so nothing is translated. What is checked are names,
shapes and values; a file that does not fit is described, so that the recipe can be put right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from pae_framework.errors import CheckpointError
from pae_framework.tensor_files import differences
from pae_generators.presets import DH_PRESETS, PRESETS, Architecture


def fitted(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``found`` as a state dict like ``expected``, in its types.

    Raises:
        CheckpointError: names or shapes differ (says which network the weights look like), or a
            value is not finite.
    """
    if problems := differences(expected, found):
        raise CheckpointError(
            f"these are the weights of {describe(found)}; the recipe's network is "
            f"{describe(expected)}:\n  " + "\n  ".join(problems)
        )
    broken = [name for name, value in found.items() if not bool(value.isfinite().all())]
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise CheckpointError(
            f"weights that are not finite: {', '.join(broken[:3])}{more}; the training they come "
            "from has diverged, or the file is damaged"
        )
    return {name: found[name].to(value.dtype) for name, value in expected.items()}


def describe(tensors: Mapping[str, Tensor]) -> str:
    """What network weights belong to, in words, from names and shapes alone."""
    try:
        return _describe(tensors)
    except (KeyError, IndexError, ValueError):
        return "another kind of network"


def _describe(tensors: Mapping[str, Tensor]) -> str:
    wide_head = "s_embedder.proj.weight" in tensors
    first = tensors["s_embedder.proj.weight" if wide_head else "x_embedder.proj.weight"]
    _, channels, patch, _ = first.shape
    classes = len(tensors["y_embedder.embedding_table.weight"]) - 1
    groups = _block_groups(tensors)
    size = _dh_name(groups) if wide_head else _name(groups[0], patch)
    tokens = _tokens(tensors)
    side = f" {round(tokens**0.5) * patch} x {round(tokens**0.5) * patch}" if tokens else ""
    latents = f"latents of {channels}{' x' if side else ' channels'}{side}"
    labels = f"{classes} classes" if classes else "no labels"
    return f"{size}, for {latents} and {labels}, with {_flags(tensors)}"


@dataclass(frozen=True)
class _Blocks:
    """Neighbouring blocks of one width; ``heads`` is 0 where no table tells."""

    depth: int
    width: int
    heads: int


def _block_groups(tensors: Mapping[str, Tensor]) -> list[_Blocks]:
    """The encoder's blocks, and those of another width or with another rotary table."""
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


def _same(blocks: _Blocks, size: Architecture) -> bool:
    heads = blocks.heads in (0, size.heads)
    return heads and (blocks.depth, blocks.width) == (size.depth, size.width)


def _name(blocks: _Blocks, patch: int) -> str:
    for name, size in PRESETS.items():
        if _same(blocks, size) and size.patch == patch:
            return f"LightningDiT {name}"
    return f"a LightningDiT of {_size(blocks)} and patch {patch}"


def _dh_name(groups: list[_Blocks]) -> str:
    for name, size in DH_PRESETS.items():
        if len(groups) == 2 and _same(groups[0], size.encoder) and _same(groups[1], size.head):
            return f"DiT-DH {name}"
    return f"a DiT-DH of {' and '.join(map(_size, groups))}"


def _size(blocks: _Blocks) -> str:
    heads = f" and {blocks.heads} heads" if blocks.heads else ""
    return f"{blocks.depth} blocks of width {blocks.width}{heads}"


def _tokens(tensors: Mapping[str, Tensor]) -> int:
    if "pos_embed" in tensors:
        return tensors["pos_embed"].shape[1]
    tables = [value for name, value in tensors.items() if name.endswith("rope.freqs_cos")]
    return len(tables[0]) if tables else 0


def _flags(tensors: Mapping[str, Tensor]) -> str:
    """The flags as a recipe would write them."""
    width = len(tensors["blocks.0.attn.proj.weight"])
    flags = {
        "qk_norm": str("blocks.0.attn.q_norm.weight" in tensors).lower(),
        "mlp": "swiglu" if "blocks.0.mlp.w12.weight" in tensors else "gelu",
        "norm": "rms" if "blocks.0.norm1.weight" in tensors else "layer",
        "rope": str(any("rope." in name for name in tensors)).lower(),
        "absolute_positions": str("pos_embed" in tensors).lower(),
        "adaln_shift": str(len(tensors["blocks.0.adaLN_modulation.1.weight"]) == 6 * width).lower(),
    }
    return ", ".join(f"{key}: {value}" for key, value in flags.items())
