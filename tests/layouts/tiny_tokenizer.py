"""A released PAE tokenizer of tiny size, an encoder that such a file brings, and its recipe.

The tokenizer's tensors are those of the golden file, which PAE's own code wrote: 16 px images,
4 x 4 tokens of width 32, 6 latent channels. The encoder's are random, under names such as released
files have; the encoder itself keeps them under names of its own, with one fused matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pae_framework import hookimpl
from pae_framework.config import EncoderConfig
from pae_framework.contracts import Encoder, Features
from pae_framework.errors import CheckpointError, DataError
from pae_framework.hookspecs import PROJECT, Register
from pae_framework.layers import map_to_tokens
from pae_framework.plugins import load_registry
from pae_framework.registry import Registry

GOLDEN = Path(__file__).parents[1] / "golden" / "pae_tail_tiny.safetensors"

RECIPE = """\
pae: 1
name: small
runtime: {threads: 1, device: cpu}
data:
  image_size: 16
  train: {use: image_folder, folder: nowhere, split: train}
  test: {use: image_folder, folder: nowhere, split: val}
tokenizer:
  encoder: {use: renamed}
  modulator: {use: dam, depth: 2}
  bottleneck: {use: sphere, channels: 6}
  decoder: {use: vit, width: 24, depth: 2, heads: 3, mlp: 48, patch: 4}
  train: {steps: 2, batch_size: 4}
"""

HEADS = 4
NAMES = {
    "embed.weight": "encoder.embeddings.projection.weight",
    "embed.bias": "encoder.embeddings.projection.bias",
}
"""Own name -> name in a released file, less the leading ``encoder.``."""
SPLIT = [f"encoder.layer.0.attention.{part}.weight" for part in ("query", "key", "value")]
"""What one fused matrix is there."""


class RenamedConfig(EncoderConfig):
    weights: str = "hub"

    def missing(self) -> str | None:
        return "its weights are not in the cache" if self.weights == "hub" else None

    def token_grid(self, image_size: int) -> int:
        return image_size // 4

    def token_width(self) -> int:
        return 32

    def token_heads(self) -> int:
        return HEADS


class Renamed(Encoder):
    """Patches of 4 px through two linear layers."""

    patch, width, heads = 4, 32, HEADS
    mean, std = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)

    def __init__(self, config: RenamedConfig, image_size: int):
        super().__init__(config, image_size)
        self.weights = config.weights
        self.grid = config.token_grid(image_size)
        self.embed = nn.Conv2d(3, 32, 4, 4)
        self.fused = nn.Linear(32, 96, bias=False)
        self.norm = nn.LayerNorm(32, elementwise_affine=False)

    def forward(self, pixels: Tensor) -> Features:
        query, key, value = self.fused(map_to_tokens(self.embed(pixels))).chunk(3, dim=-1)
        tokens = self.norm(query + key.tanh() * value)
        return Features(tokens, tokens.mean(dim=1))

    def load_pretrained(self) -> None:
        if self.weights == "hub":
            raise DataError("its weights are not in the cache")

    def from_released(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        wanted = {*NAMES.values(), *SPLIT}
        if wrong := sorted(wanted ^ set(tensors)):
            raise CheckpointError(f"missing or unknown: {', '.join(wrong)}")
        renamed = {own: tensors[name] for own, name in NAMES.items()}
        return {**renamed, "fused.weight": torch.cat([tensors[name] for name in SPLIT])}

    def to_released(self) -> dict[str, Tensor]:
        own = self.state_dict()
        fused = dict(zip(SPLIT, own["fused.weight"].chunk(3), strict=True))
        return {**{name: own[key] for key, name in NAMES.items()}, **fused}


pae_api = 1


@hookimpl
def pae_register_encoders(register: Register) -> None:
    register(
        "renamed",
        target="layouts.tiny_tokenizer:Renamed",
        config="layouts.tiny_tokenizer:RenamedConfig",
        summary="renames its weights",
    )


def install(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install this module as a plugin for one test: metadata in a folder on the import path."""
    info = site / "tiny_tokenizer-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-tokenizer\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[pae_framework]\ntiny = {__name__}\n")
    monkeypatch.syspath_prepend(str(site))


def registry_with_renamed() -> Registry:
    """The installed plugins and this module, even if :func:`install` was not called."""
    points = [point for point in entry_points(group=PROJECT) if point.value != __name__]
    return load_registry([*points, EntryPoint("tiny", __name__, PROJECT)])


def golden() -> dict[str, Tensor]:
    """Inputs, outputs and weights that PAE's own code gave."""
    return load_file(GOLDEN)


def tokenizer_part() -> dict[str, Tensor]:
    """The released tensors without the encoder's."""
    found = golden().items()
    return {name.removeprefix("state."): x for name, x in found if name.startswith("state.")}


def encoder_part() -> dict[str, Tensor]:
    """The released tensors of the encoder, random."""
    random = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return 0.3 * torch.randn(*shape, generator=random)

    released = {
        "encoder.embeddings.projection.weight": draw(32, 3, 4, 4),
        "encoder.embeddings.projection.bias": draw(32),
        **{name: draw(32, 32) for name in SPLIT},
    }
    return {f"encoder.{name}": tensor for name, tensor in released.items()}


def released(with_encoder: bool = True) -> dict[str, Tensor]:
    """The state dict of a released tokenizer."""
    return {**(encoder_part() if with_encoder else {}), **tokenizer_part()}


def write(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """A file as PAE's training writes it (with things beside ``model``), or plain safetensors."""
    if path.suffix == ".safetensors":
        save_file(dict(tensors), path)
    else:
        ema = {name: tensor + 1 for name, tensor in tensors.items()}
        torch.save({"model": dict(tensors), "ema": ema, "step": 7, "epoch": 1}, path)
    return path


def same_bits(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    """Whether two sets of tensors have the same names, dtypes, shapes and values."""
    return one.keys() == two.keys() and all(
        one[name].dtype == two[name].dtype and torch.equal(one[name], two[name]) for name in one
    )
