"""ConvNeXt V2 as an encoder, built by timm.

Legend: B batch, N tokens, D width, S image side, S' input side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import timm
import torch.nn.functional as F
from timm.models.convnext import checkpoint_filter_fn
from torch import Tensor

from pae_encoders.clip_models import STATISTICS
from pae_encoders.convnext_config import ConvNeXtV2Config
from pae_encoders.vfm import resized
from pae_framework.contracts import Encoder, Features
from pae_framework.errors import CheckpointError
from pae_framework.hub import weights_path
from pae_framework.layers import map_to_tokens
from pae_framework.tensor_files import load_state
from pae_framework.weight_files import read_checkpoint

_KNOWN_BY = ("stem.0.weight", "downsample_layers.0.0.weight")
"""A weight in files with timm's and with Meta's names."""
_CLASSIFIER, _LAST_NORM = "head.fc.", "head.norm."
_EPS = 1e-6


class ConvNeXtV2(Encoder):
    """timm's network without classifier; tokens are its last feature map, each one normalized.

    ``pooled`` is the mean of the map before the norm, as FDr6 has it. timm applies its last norm,
    with an affine part, to that mean: this is the pooling ``head``. Always in eval mode.
    """

    network: Any  # an nn.Module, whose attributes mypy does not know

    def __init__(self, config: ConvNeXtV2Config, image_size: int):
        super().__init__(config, image_size)
        self.settings = config
        self.grid, self.input_side = config.token_grid(image_size), config.input_side(image_size)
        self.width, self.heads = config.token_width(), config.token_heads()
        self.patch = config.form.patch
        self.mean, self.std = STATISTICS["imagenet"]
        self.network = timm.create_model(config.variant.name, pretrained=False, num_classes=0)
        self.eval()

    def normalize(self, images: Tensor) -> Tensor:
        """Resize images (B, 3, S, S) in [0, 1] to (B, 3, S', S') and standardize them."""
        return super().normalize(resized(images, self.input_side))

    def forward(self, pixels: Tensor) -> Features:
        """Features of normalized pixels (B, 3, S', S')."""
        tokens = map_to_tokens(self.network.forward_features(pixels))
        return Features(F.layer_norm(tokens, (self.width,), eps=_EPS), pooled=tokens.mean(dim=1))

    def pool(self, pixels: Tensor, pooling: str) -> Tensor:
        """Features of an image; ``head``: those that timm's classifier takes."""
        if pooling != "head":
            return super().pool(pixels, pooling)
        pooled: Tensor = self.network(pixels)
        return pooled

    def distance_label(self, label: str, name: str) -> str:
        """With the model; see :class:`pae_framework.contracts.Encoder`."""
        return self.settings.distance_label(label, name)

    def feature_maps(self, pixels: Tensor) -> Iterator[Tensor]:
        """Tokens (B, n, d) after each stage; n falls and d rises."""
        x = self.network.stem(pixels)
        for stage in self.network.stages:
            x = stage(x)
            yield map_to_tokens(x)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode."""
        return super().train(False)

    def load_pretrained(self) -> None:
        """Load the weights the config names; see :class:`pae_framework.contracts.Encoder`.

        Files without the last norm, such as those of the masked autoencoder, leave it as it is.
        """
        config = self.settings
        if config.weights == "none":
            return
        path = weights_path(config.weights, config.remote)
        found = read_checkpoint(path, "average", _KNOWN_BY)
        named = f"{path}, read as a {config.model},"
        try:
            ours = checkpoint_filter_fn(found, self.network)
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"{named} does not fit: {error}") from error
        norm = {n: t for n, t in self.network.state_dict().items() if n.startswith(_LAST_NORM)}
        kept = {name: t for name, t in ours.items() if not name.startswith(_CLASSIFIER)}
        load_state(self.network, {**norm, **kept}, named)
