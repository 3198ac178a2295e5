"""Inception features as the ADM evaluator computes them, with torch-fidelity's network.

Legend: B images of a batch, H x W their size in px.
"""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from pae_framework.errors import DataError
from pae_framework.metrics.features import InceptionFeatures
from pae_framework.metrics.full_precision import full_precision
from pae_framework.metrics.inception import (
    RANDOM,
    WEIGHTS,
    WeightsIdentity,
    identify,
    inception_file,
)
from pae_framework.seeding import seeded
from pae_framework.tensor_files import load_state
from pae_framework.weight_files import read_checkpoint

POOL, SPATIAL, LOGITS = 2048, 2023, 1008
"""Widths of the pooled and the spatial features, and number of the network's classes."""
SPATIAL_CHANNELS = 7
"""Channels of the first branch of Mixed_6d that make up the spatial features, at 17 x 17 places."""

_FIRST_BLOCKS = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1"),
    *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c"),
)
_LAST_BLOCKS = ("Mixed_6d", "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool")


class Inception(FeatureExtractorInceptionV3):
    """torch-fidelity's Inception, built with random weights; names of weights are its own.

    The initial weights keep the scale of activations from layer to layer, and are always the same.
    """

    def __init__(self) -> None:
        empty = io.BytesIO()
        torch.save({}, empty)
        empty.seek(0)
        with seeded("inception", "initial weights"):
            super().__init__(
                "inception-v3-compat",
                ["2048", "logits_unbiased"],
                feature_extractor_weights_path=empty,
            )
            for module in self.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(self.fc.bias)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """As usual; but the constructor, which must load a file, gives an empty one."""
        return super().load_state_dict(state_dict, strict and bool(state_dict), assign)

    def preprocess(self, images: Tensor) -> Tensor:
        """Pixels (B, 3, 299, 299) of images (B, 3, H, W) uint8, as in ADM's TensorFlow graph."""
        return standardized(resized(images.float()))

    def features(self, pixels: Tensor) -> InceptionFeatures:
        """Features of preprocessed pixels, in full float32 precision."""
        with full_precision():
            x = self._apply_blocks(_FIRST_BLOCKS, pixels)  # (B, 768, 17, 17)
            branch = self.Mixed_6d.branch1x1(x)  # (B, 192, 17, 17)
            pool = self._apply_blocks(_LAST_BLOCKS, x).flatten(1)
        # ADM's graph has the channels last: rows, columns, channels.
        spatial = branch[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        return InceptionFeatures(pool, spatial)

    def logits(self, pool: Tensor) -> Tensor:
        """Logits (B, 1008) of pooled features (B, 2048), without the bias, as ADM and IS use."""
        with full_precision():
            return pool @ self.fc.weight.T

    def _apply_blocks(self, names: tuple[str, ...], x: Tensor) -> Tensor:
        for name in names:
            x = getattr(self, name)(x)
        return x


def resized(images: Tensor) -> Tensor:
    """Images (B, 3, 299, 299), resized bilinearly as TensorFlow 1 does, without half pixels."""
    side = Inception.INPUT_IMAGE_SIZE
    return interpolate_bilinear_2d_like_tensorflow1x(images, size=(side, side), align_corners=False)


def standardized(images: Tensor) -> Tensor:
    """Images with values from 0 to 255 as the network takes them."""
    return (images - 128) / 128


class InceptionExtractor:
    """Extracts features of uint8 images with one set of weights, on a device.

    Args:
        weights: ``default`` for the published weights, ``none`` for random ones, or a file name.
        device: where the network runs.

    Raises:
        DataError: the weights are missing or damaged.
        CheckpointError: the file holds other weights.
    """

    widths = POOL, SPATIAL

    def __init__(self, weights: str, device: torch.device | str = "cpu"):
        self._network = Inception()
        if weights == RANDOM:
            self.sha256 = RANDOM
        else:
            self.sha256 = load_inception(self._network, weights).sha256
        self._network.to(device)
        self._device = torch.device(device)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> InceptionFeatures:
        """Features on the CPU of images (B, 3, H, W) uint8; B is the batch of the network."""
        pixels = self._network.preprocess(images.to(self._device, non_blocking=True))
        pool, spatial = self._network.features(pixels)
        return InceptionFeatures(pool.cpu(), spatial.cpu())

    @torch.no_grad()
    def logits(self, pool: Tensor) -> Tensor:
        """Logits (M, 1008) on the CPU of pooled features (M, 2048)."""
        logits: Tensor = self._network.logits(pool.to(self._device))
        return logits.cpu()


def load_inception(network: Inception, weights: str) -> WeightsIdentity:
    """Load the published weights (``default``) or those of a file; says which they are.

    Raises:
        DataError: they are missing or damaged.
        CheckpointError: the file holds other weights.
    """
    file = inception_file(weights)
    identity = identify(file)
    if weights == "default" and not identity.published:
        raise DataError(
            f"{file} is damaged: its SHA-256 is {identity.sha256}; remove it and download "
            f"{WEIGHTS.url} again"
        )
    # Files of older versions of PyTorch do not count batches, and nothing uses the count.
    counts = {n: t for n, t in network.state_dict().items() if n.endswith("num_batches_tracked")}
    load_state(network, {**counts, **read_checkpoint(file)}, str(file))
    return identity
