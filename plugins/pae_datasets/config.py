"""What a recipe may say of each built-in data source. No torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pae_datasets.layout import find_idx_files, image_folder_problem
from pae_framework.config import DataSourceConfig

Split = Literal["train", "test"]


class DigitsConfig(DataSourceConfig):
    """Handwritten digits of 8 x 8 px (scikit-learn's copy of UCI Optical Recognition)."""

    provides_masks: ClassVar[bool] = True

    split: Split = Field("train", description="test: every fifth image of each class, 355 in all")
    mask_threshold: float = Field(
        0.4, ge=0, lt=1, description="a pixel brighter than this (0 to 1) is ink, segment 1"
    )

    def class_count(self) -> int:
        """The ten digits."""
        return 10


class IdxConfig(DataSourceConfig):
    """Files in MNIST's format: ``train-images-idx3-ubyte`` and its sisters, plain or ``.gz``."""

    provides_masks: ClassVar[bool] = True

    folder: str | tuple[str, ...] = Field(
        description="folder of the four files, or several, of which the first that exists counts"
    )
    split: Split = Field("train", description="test: the files whose names begin with t10k")
    class_names: tuple[str, ...] | None = Field(
        None, min_length=1, description="names in the order of the labels; null: the numbers"
    )
    limit: int | None = Field(None, gt=0, description="only the first images; null: all")
    fit: Literal["pad", "resize"] | None = Field(
        None,
        description="how images meet `data.image_size`: zero margins or bilinear resize; "
        "null: margins where it is larger by a quarter at most, else resize",
    )
    mask_threshold: float = Field(
        0.05, ge=0, lt=1, description="a pixel brighter than this (0 to 1) is foreground, segment 1"
    )

    @property
    def folders(self) -> tuple[str, ...]:
        """The candidate folders, in order."""
        return (self.folder,) if isinstance(self.folder, str) else self.folder

    def class_count(self) -> int | None:
        """As many as there are names, where they are given."""
        return None if self.class_names is None else len(self.class_names)

    def missing(self) -> str | None:
        """Say which folder or file of the split was not found."""
        found = find_idx_files(self.folders, self.split)
        return found if isinstance(found, str) else None


class ImageFolderConfig(DataSourceConfig):
    """``folder[/split]/class/**/image.jpg``; a class is a folder, classes are sorted by name."""

    without_effect = frozenset({"images", "classes"})  # what there is must be that many

    folder: str = Field(description="root of the data set")
    split: str | None = Field(
        None, description="subfolder that holds the class folders (train, val); null: the root"
    )
    images: int | None = Field(
        None, gt=0, description="images there must be, so that none is missing; null: any number"
    )
    classes: int | None = Field(
        None, gt=0, description="class folders there must be; null: any number"
    )

    def expected(self) -> tuple[int, int] | None:
        """The images and classes the recipe states, if it states both."""
        if self.images is None or self.classes is None:
            return None
        return self.images, self.classes

    def class_count(self) -> int | None:
        """The stated classes."""
        return self.classes

    def missing(self) -> str | None:
        """Say that the folder, its class folders or their images are not there."""
        return image_folder_problem(self.folder, self.split, self.classes)


KINDS_OF_SHAPES = 8


class ShapesConfig(DataSourceConfig):
    """Scenes drawn from a seed: one large shape, which is the class, and smaller ones behind it."""

    provides_masks: ClassVar[bool] = True

    split: Split = Field("train", description="the two splits hold different scenes")
    count: int = Field(5000, gt=0, description="number of images")
    seed: int = Field(0, ge=0, description="image i is a function of (seed, split, i) only")
    objects: int = Field(3, ge=1, le=8, description="shapes per scene, the large one included")

    def class_count(self) -> int:
        """The kinds of shapes."""
        return KINDS_OF_SHAPES
