"""Small grey data sets that are held in memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pae_framework.config import DataSourceConfig
from pae_framework.contracts import DataSource, LabelledImage


class GreyArrays(DataSource):
    """Grey images in memory as uint8, shown as RGB; bright pixels are the foreground.

    Args:
        config: of the data source.
        images: (M, S, S) uint8, already of the final size.
        labels: (M,).
        class_names: names of the labels.
        mask_threshold: a pixel above this share of 255 belongs to segment 1, others to 0.
    """

    def __init__(
        self,
        config: DataSourceConfig,
        images: Tensor,
        labels: Tensor,
        class_names: Sequence[str],
        mask_threshold: float,
    ):
        super().__init__(config, image_size=images.shape[-1])
        self._images = images
        self._labels: list[int] = labels.tolist()
        self._class_names = tuple(class_names)
        self._mask_threshold = mask_threshold

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes."""
        return self._class_names

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> LabelledImage:
        # A view: three channels cost no memory until a batch is stacked.
        return LabelledImage(self._images[index].expand(3, -1, -1), self._labels[index])

    def mask(self, index: int) -> Tensor:
        """1 where the image is brighter than the threshold, else 0; (S, S) int64."""
        return (self._images[index] > 255 * self._mask_threshold).long()


def resize_grey(images: Tensor, size: int) -> Tensor:
    """Bilinear resize of (M, H, W) uint8 to (M, size, size) uint8; antialiased when it shrinks."""
    shrinks = size < images.shape[-1]
    resized = [
        F.interpolate(part[:, None].float(), size=(size, size), mode="bilinear", antialias=shrinks)
        for part in images.split(4096)  # bounds the float copy
    ]
    return torch.cat(resized)[:, 0].round().clamp(0, 255).to(torch.uint8)


def pad_grey(images: Tensor, size: int) -> Tensor:
    """Centre (M, H, W) on a black square of ``size`` px; an odd margin is wider below and right."""
    height, width = images.shape[-2:]
    top, left = (size - height) // 2, (size - width) // 2
    return F.pad(images, (left, size - width - left, top, size - height - top))
