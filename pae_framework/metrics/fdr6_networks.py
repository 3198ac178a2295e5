"""The networks of FDr6 but Inception, built by timm."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from pae_framework.constants import channels
from pae_framework.data.data_settings import ResizeSettings
from pae_framework.data.pixels import resize
from pae_framework.errors import DataError
from pae_framework.hub import offline
from pae_framework.metrics.fdr6 import RANDOM, FDr6Network
from pae_framework.metrics.full_precision import full_precision
from pae_framework.seeding import seeded
from pae_framework.tensor_files import weights_digest

BATCH = 50
"""Images that a network processes at once."""


def build(described: FDr6Network, file: Path | None = None) -> Any:
    """timm's network without classifier, for images of any size; None: random weights.

    Vision transformers pad images whose side is no multiple of the patch.
    """
    is_vit = described.pool != "spatial"
    more: dict[str, Any] = {"dynamic_img_size": True, "dynamic_img_pad": True} if is_vit else {}
    if file is not None:
        more["pretrained_cfg_overlay"] = {"file": str(file)}
    with seeded("fdr6", described.model):
        network: Any = timm.create_model(
            described.model, pretrained=file is not None, num_classes=0, **more
        )
    return network.eval().requires_grad_(False)


def weights_file(described: FDr6Network, weights: str) -> Path | None:
    """The file of the weights, downloaded if necessary and allowed; None: random ones.

    Raises:
        DataError: it is missing and cannot be downloaded.
    """
    if weights == RANDOM:
        return None
    file = described.file(weights)
    problem = described.missing(weights)
    if problem is not None and (isinstance(file, Path) or offline()):
        raise DataError(problem)
    if isinstance(file, Path):
        return file
    try:
        return file.fetch()
    except OSError as error:
        raise DataError(f"{file.where} cannot be downloaded: {error}") from error


class FDr6Features:
    """Features of uint8 images by one network, in full float32 precision.

    Raises:
        DataError: its weights are missing.
    """

    def __init__(self, described: FDr6Network, weights: str, device: torch.device | str = "cpu"):
        self._described, self._device = described, torch.device(device)
        self._network = build(described, weights_file(described, weights)).to(device)
        config = timm.get_pretrained_cfg(described.model)
        assert config is not None, f"timm has no {described.model}"
        self._mean, self._std = config.mean, config.std

    @cached_property
    def digest(self) -> str:
        """Digest of its weights."""
        return weights_digest(self._network)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features (M, D) on the CPU of images (M, 3, S, S) uint8."""
        with full_precision():
            return torch.cat([self._features(some).cpu() for some in images.split(BATCH)])

    def _features(self, images: Tensor) -> Tensor:
        pixels = images.to(self._device).float() / 255
        pixels = resize(pixels, ResizeSettings(side=self._described.side))
        pixels = (pixels - channels(self._mean, pixels)) / channels(self._std, pixels)
        return pooled(self._network, self._described, pixels).float()


def pooled(network: Any, described: FDr6Network, pixels: Tensor) -> Tensor:
    """Features (B, D) of standardized pixels (B, 3, side, side)."""
    features: Tensor = network.forward_features(pixels)
    if described.pool == "spatial":
        return features.mean(dim=(2, 3))
    if described.pool == "cls":
        return features[:, 0]
    attended: Tensor = network.attn_pool(features)
    return attended
