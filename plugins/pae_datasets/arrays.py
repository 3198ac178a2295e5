"""Small gray-scale data sets in memory.

Shapes: M images, H and W height and width in the file, S image side in px.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pae_framework.config import DataSourceConfig
from pae_framework.contracts import DataSource, LabeledImage


class GrayArrays(DataSource):
    """Gray-scale images, returned as RGB, with bright pixels as the foreground.

    Args:
        config: config of the data source.
        images: (M, S, S) uint8, of the final size.
        labels: (M,).
        class_names: name of each label.
        mask_threshold: pixels above this fraction of 255 are segment 1, others segment 0.
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

    def __getitem__(self, index: int) -> LabeledImage:
        # A view: three channels take no memory until a batch is stacked.
        return LabeledImage(self._images[index].expand(3, -1, -1), self._labels[index])

    def labels(self) -> Sequence[int]:
        """The label of each image."""
        return self._labels

    def mask(self, index: int) -> Tensor:
        """Mask (S, S) int64: 1 if a pixel is brighter than the threshold, else 0."""
        return (self._images[index] > 255 * self._mask_threshold).long()


def resize_gray(images: Tensor, size: int) -> Tensor:
    """Bilinear resize of (M, H, W) uint8 to (M, size, size) uint8, antialiased if it shrinks."""
    shrinks = size < images.shape[-1]
    return torch.cat(
        [
            F.interpolate(
                chunk[:, None].float(), size=(size, size), mode="bilinear", antialias=shrinks
            )[:, 0]
            .round()
            .clamp(0, 255)
            .to(torch.uint8)
            for chunk in images.split(4096)  # limits the size of the float copy
        ]  # each (m, S, S)
    )


def pad_gray(images: Tensor, size: int) -> Tensor:
    """Pad (M, H, W) to (M, size, size) with zeros; odd margins are larger at bottom and right."""
    height, width = images.shape[-2:]
    top, left = (size - height) // 2, (size - width) // 2
    return F.pad(images, (left, size - width - left, top, size - height - top))
