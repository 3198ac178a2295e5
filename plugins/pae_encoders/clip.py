"""CLIP's image towers as encoders, built by open-clip.

Legend: B batch, N patch tokens, D width, S image side, S' input side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from torch import Tensor

from pae_encoders.clip_config import CLIPConfig
from pae_encoders.clip_towers import build_tower
from pae_encoders.vfm import resized
from pae_framework.contracts import Encoder, Features
from pae_framework.errors import CheckpointError
from pae_framework.hub import weights_path
from pae_framework.tensor_files import load_state
from pae_framework.weight_files import read_checkpoint

_TOWER = "visual."
"""What precedes the names of the image tower in open-clip's files."""


class CLIP(Encoder):
    """An image tower of open-clip's; see :mod:`pae_encoders.clip_towers`.

    Names of weights are open-clip's. CoCa's attention pooling and the projection to text are kept
    for files and for the pooling ``head``.

    Always in eval mode. The caller decides whether parameters are trainable.
    """

    visual: Any  # an nn.Module, whose attributes mypy does not know

    def __init__(self, config: CLIPConfig, image_size: int):
        super().__init__(config, image_size)
        self.settings, form = config, config.form
        self.form = form
        self.grid, self.input_side = config.token_grid(image_size), config.input_side(image_size)
        self.width, self.heads, self.patch = form.width, form.heads, form.patch
        self.mean, self.std = config.statistics
        self._tower = build_tower(config.variant.name, form, self.grid, config.attention)
        self.visual = self._tower.visual
        self.eval()

    def normalize(self, images: Tensor) -> Tensor:
        """Resize images (B, 3, S, S) in [0, 1] to (B, 3, S', S') and standardize them."""
        return super().normalize(resized(images, self.input_side))

    def forward(self, pixels: Tensor) -> Features:
        """Features of normalized pixels (B, 3, S', S')."""
        return self._tower.features(pixels)

    def pool(self, pixels: Tensor, pooling: str) -> Tensor:
        """Features of an image; ``head``: those that open-clip compares with text."""
        if pooling != "head":
            return super().pool(pixels, pooling)
        return self._tower.embedding(pixels)

    def distance_label(self, label: str, name: str) -> str:
        """With the model; see :class:`pae_framework.contracts.Encoder`."""
        return self.settings.distance_label(label, name)

    def feature_maps(self, pixels: Tensor) -> Iterator[Tensor]:
        """Patch tokens after each block of a transformer, (B, N, D), or else after each stage."""
        return self._tower.feature_maps(pixels)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode."""
        return super().train(False)

    def load_pretrained(self) -> None:
        """Load the weights the config names; see :class:`pae_framework.contracts.Encoder`."""
        config = self.settings
        if config.weights == "none":
            return
        path = weights_path(config.weights, config.remote)
        known = next(name for name in self.state_dict() if name.endswith(".weight"))
        found = read_checkpoint(path, "average", (known,))
        tower = {name: t for name, t in found.items() if name.startswith(_TOWER)}
        if not tower:
            raise CheckpointError(f"{path} holds no image tower with open-clip's names (visual.*)")
        load_state(self, tower, f"{path}, read as a {config.model},")
