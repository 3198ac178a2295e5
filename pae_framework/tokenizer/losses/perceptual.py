"""A perceptual distance in the frozen encoder's own features: a stand-in for LPIPS, not LPIPS.

LPIPS (Zhang et al. 2018) compares images in a network trained for classification and weights its
channels by human judgments. Here the network is the tokenizer's encoder and all channels have
equal weight, so no other weights are needed. Values are comparable with each other only, not with
published LPIPS values.

Legend: B batch, S image side in px, n tokens of a layer, d its width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pae_framework.contracts import Encoder
from pae_framework.errors import UsageError
from pae_framework.frozen import UsesFrozen
from pae_framework.tokenizer.step_tokens import memory


class FeatureDistance(Protocol):
    """A distance (B,) between images (B, 3, S, S), computed from features of each."""

    def features(self, images: Tensor) -> list[Tensor]:
        """Features to compare, one tensor (B, ...) per layer."""

    def compare(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """Distances (B,) between two batches given by their features."""


class PerceptualDistance(UsesFrozen):
    """Mean over blocks and tokens of the squared distance of channel-normalized features.

    d(a, b) = mean_l mean_n |f_l,n(a) - f_l,n(b)|^2 with |f_l,n| = 1: LPIPS's formula with unit
    channel weights. So d lies in [0, 4] and is 0 for equal images. Gradients flow to both images,
    which are not clamped.

    Args:
        encoder: gets frozen; its ``feature_maps`` are compared.
        layers: indices of those to compare, from 0; None: all.

    Raises:
        UsageError: ``layers`` is empty or names a layer the encoder does not have.
    """

    encoder: Encoder
    eps = 1e-10

    def __init__(self, encoder: Encoder, layers: Sequence[int] | None = None):
        super().__init__()
        self.hold_frozen("encoder", encoder)
        self.layers = layers
        if layers is not None:
            _check_layers(encoder, layers)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances (B,) between images (B, 3, S, S) in [0, 1]."""
        return self.compare(self.features(a), self.features(b))

    def features(self, images: Tensor) -> list[Tensor]:
        """Channel-normalized features, one (B, n, d) per layer, float32."""
        maps = self.encoder.feature_maps(self.encoder.normalize(images))
        if self.layers is not None:
            # islice: the encoder does not compute layers after the last one compared.
            computed = list(islice(maps, max(self.layers) + 1))
            maps = [computed[index] for index in self.layers]
        return [F.normalize(x.float(), dim=-1, eps=self.eps) for x in maps]

    @staticmethod
    def compare(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """Distances (B,) between two batches given by their :meth:`features`."""
        pairs = zip(a, b, strict=True)
        layers = [(x - y).square().sum(dim=-1).mean(dim=-1) for x, y in pairs]  # each (B,)
        return torch.stack(layers).mean(dim=0)


class CachedFeatures:
    """A FeatureDistance with a cache of features; create one per training step.

    The cache key is the images' memory, which a detached tensor shares. So when a regularizer
    compares with the detached reconstruction, its features are reused. Images must not be changed
    in place meanwhile.
    """

    def __init__(self, distance: FeatureDistance):
        self._distance = distance
        self._cache: dict[tuple[object, ...], tuple[Tensor, list[Tensor]]] = {}

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances (B,) between images (B, 3, S, S) in [0, 1]."""
        return self._distance.compare(self._features(a), self._features(b))

    def detach(self) -> None:
        """Keep the features so far as constants, and release what computed them."""
        for key, (images, features) in self._cache.items():
            self._cache[key] = images.detach(), [x.detach() for x in features]

    def _features(self, images: Tensor) -> list[Tensor]:
        key = memory(images)
        cached, features = self._cache.get(key, (None, []))
        if cached is None or (images.requires_grad and not cached.requires_grad):
            features = self._distance.features(images)
            # Keep the images, so that their memory is not reused while its address is a key.
            self._cache[key] = (images, features)
        return features if images.requires_grad else [x.detach() for x in features]


@torch.no_grad()
def _check_layers(encoder: Encoder, layers: Sequence[int]) -> None:
    where = "tokenizer.reconstruction.perceptual.layers"
    if not layers:
        raise UsageError(f"{where} is empty; set {where}=null for all layers")
    device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    size = encoder.image_size
    blank = torch.zeros(1, 3, size, size, device=device)
    count = sum(1 for _ in encoder.feature_maps(encoder.normalize(blank)))
    if wrong := [index for index in layers if not 0 <= index < count]:
        raise UsageError(
            f"{where}: there is no layer {wrong[0]}; the encoder has layers 0 to {count - 1}"
        )
