"""A data source: images (M, S, S, 3) uint8 and labels (M,) in a file of NumPy."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field

from pae_framework import hookimpl
from pae_framework.config import DataSourceConfig, PathText
from pae_framework.contracts import DataSource, LabeledImage

pae_api = 1


class NpzImagesConfig(DataSourceConfig):
    """The arrays `images` and `labels` of one file."""

    locations = paths = frozenset({"file"})
    file: PathText = Field(description="the file, .npz")

    def missing(self):
        """A message if the file is not there."""
        return None if Path(self.file).expanduser().is_file() else f"there is no {self.file}"

    def data_files(self):
        """What the images depend on: the contents of the file, wherever it is."""
        return None if self.missing() else {"arrays": Path(self.file).expanduser()}


class NpzImages(DataSource):
    """All images in memory."""

    def __init__(self, config, image_size):
        super().__init__(config, image_size)
        with np.load(Path(config.file).expanduser()) as arrays:
            self.images, self.known = arrays["images"], arrays["labels"].tolist()

    @property
    def class_names(self):
        """The labels."""
        return [str(label) for label in range(max(self.known) + 1)]

    def __len__(self):
        return len(self.known)

    def __getitem__(self, index):
        """One image, resized: (3, S, S) uint8, and its label."""
        pixels = torch.from_numpy(self.images[index]).permute(2, 0, 1)[None].float()
        sized = F.interpolate(pixels, (self.image_size,) * 2, mode="bilinear", antialias=True)
        return LabeledImage(sized[0].round().clamp(0, 255).to(torch.uint8), self.known[index])

    def labels(self):
        """Known without reading images."""
        return self.known


@hookimpl
def pae_register_datasets(register):
    register(
        "npz_images",
        target=f"{__name__}:NpzImages",
        config=f"{__name__}:NpzImagesConfig",
        summary="images and labels in a file of NumPy",
    )
