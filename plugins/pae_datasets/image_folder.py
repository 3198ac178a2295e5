"""A folder of images per class, like ImageNet, or of images without classes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pae_datasets.config import ImageFolderConfig
from pae_datasets.image_cache import ImageCache
from pae_datasets.mask_names import mask_name
from pae_datasets.masks import read_mask
from pae_framework.contracts import DataSource, LabeledImage
from pae_framework.errors import DataError


class ImageFolder(DataSource):
    """Images read from disk one by one, in the order of class names and paths."""

    def __init__(self, config: ImageFolderConfig, image_size: int):
        super().__init__(config, image_size)
        if problem := config.missing():
            raise DataError(problem)
        listing = config.listing()
        self._masks = config.masks_root
        self._class_names = tuple(listing.classes)
        self._root = config.root
        self._files: list[tuple[str, int]] = [
            (name, label) for label, names in enumerate(listing.classes.values()) for name in names
        ]
        self._cache = ImageCache(
            config.root,
            f"{config.holdout} {config.part} {config.exclude}",
            len(self._files),
            image_size,
            config.reduced_jpeg,
            config.background,
            config.cache_gib,
        )
        if config.images not in (None, len(self._files)):
            raise DataError(
                f"{config.root} contains {len(self._files)} images, but `images` is {config.images}"
            )

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the class folders; one name for images without any."""
        return self._class_names

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> LabeledImage:
        name, label = self._files[index]
        return LabeledImage(self._cache.image(index, name), label)

    def labels(self) -> Sequence[int]:
        """The label of each image."""
        return [label for _, label in self._files]

    def mask(self, index: int) -> Tensor | None:
        """Mask (S, S) int64, cropped like the image; None without ``masks``.

        Raises:
            DataError: the mask cannot be read, or has another size than the image; names the file.
        """
        if self._masks is None:
            return None
        name, _ = self._files[index]
        return read_mask(self._masks / mask_name(name), self._root / name, self.image_size)
