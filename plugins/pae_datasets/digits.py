"""The handwritten digits of scikit-learn."""

from __future__ import annotations

import torch
from torch import Tensor

from pae_datasets.arrays import GrayArrays, resize_gray
from pae_datasets.config import DigitsConfig

_TEST_EVERY = 5


class Digits(GrayArrays):
    """1797 digits of 8 x 8 px and 17 gray levels, enlarged to ``image_size``."""

    def __init__(self, config: DigitsConfig, image_size: int):
        # scikit-learn takes a second to import.
        from sklearn.datasets import load_digits

        pixels, target = load_digits(return_X_y=True)
        labels = torch.from_numpy(target).long()
        images = (torch.from_numpy(pixels).view(-1, 8, 8) * (255 / 16)).round().to(torch.uint8)
        in_split = is_test(labels) == (config.split == "test")  # (M,)
        super().__init__(
            config,
            resize_gray(images[in_split], image_size),
            labels[in_split],
            class_names=config.known_class_names(),
            mask_threshold=config.mask_threshold,
        )


def is_test(labels: Tensor) -> Tensor:
    """Whether each image is a test image, (M,) bool: every fifth of each class, in file order."""
    test = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        indices = (labels == label).nonzero()[:, 0]
        test[indices[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
    return test
