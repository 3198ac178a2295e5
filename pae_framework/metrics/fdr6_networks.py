"""The networks of FDr6 but Inception, built by timm."""

from __future__ import annotations

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
from pae_framework.metrics.fdr6 import RANDOM, Judge
from pae_framework.seeding import seeded

BATCH = 50
"""Images that a network processes at once."""


def build(judge: Judge, file: Path | None = None) -> Any:
    """timm's network without classifier, for images of any size; None: random weights.

    Vision transformers pad images whose side is no multiple of the patch.
    """
    is_vit = judge.pool != "spatial"
    more: dict[str, Any] = {"dynamic_img_size": True, "dynamic_img_pad": True} if is_vit else {}
    if file is not None:
        more["pretrained_cfg_overlay"] = {"file": str(file)}
    with seeded("fdr6", judge.model):
        network: Any = timm.create_model(
            judge.model, pretrained=file is not None, num_classes=0, **more
        )
    return network.eval().requires_grad_(False)


def weights_file(judge: Judge, weights: str) -> Path | None:
    """The file of the weights, downloaded if necessary and allowed; None: random ones.

    Raises:
        DataError: it is missing and cannot be downloaded.
    """
    if weights == RANDOM:
        return None
    file = judge.file(weights)
    problem = judge.missing(weights)
    if problem is not None and (isinstance(file, Path) or offline()):
        raise DataError(problem)
    if isinstance(file, Path):
        return file
    try:
        return file.fetch()
    except OSError as error:
        raise DataError(f"{file.where} cannot be downloaded: {error}") from error


class JudgeFeatures:
    """Features of uint8 images by one network, in float32.

    Raises:
        DataError: its weights are missing.
    """

    def __init__(self, judge: Judge, weights: str, device: torch.device | str = "cpu"):
        self._judge, self._device = judge, torch.device(device)
        self._network = build(judge, weights_file(judge, weights)).to(device)
        config = timm.get_pretrained_cfg(judge.model)
        assert config is not None, f"timm has no {judge.model}"
        self._mean, self._std = config.mean, config.std

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features (M, D) on the CPU of images (M, 3, S, S) uint8."""
        return torch.cat([self._features(some).cpu() for some in images.split(BATCH)])

    def _features(self, images: Tensor) -> Tensor:
        pixels = images.to(self._device).float() / 255
        pixels = resize(pixels, ResizeSettings(side=self._judge.side))
        pixels = (pixels - channels(self._mean, pixels)) / channels(self._std, pixels)
        return pooled(self._network, self._judge, pixels).float()


def pooled(network: Any, judge: Judge, pixels: Tensor) -> Tensor:
    """Features (B, D) of standardized pixels (B, 3, side, side)."""
    features: Tensor = network.forward_features(pixels)
    if judge.pool == "spatial":
        return features.mean(dim=(2, 3))
    if judge.pool == "cls":
        return features[:, 0]
    attended: Tensor = network.attn_pool(features)
    return attended
