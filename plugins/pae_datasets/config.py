"""Parameters of the built-in data sources. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from annotated_types import Len
from pydantic import AfterValidator, Field, model_validator

from pae_datasets.layout import find_idx_files, find_shards
from pae_datasets.listing import FLAT, Listing, Part, list_images, read_by_first_version
from pae_datasets.mask_names import mask_name, problem_of_masks
from pae_framework.config import Count, DataSourceConfig, PathText, Seed
from pae_framework.data.data_settings import STORED, Background

Split = Literal["train", "test"]

REDUCED_JPEG: bool = Field(
    False,
    description="decode JPEG files of at least twice `data.image_size` at a half, a quarter or an "
    "eighth of their size: faster, but with slightly different pixels than ADM's crop",
)


class DigitsConfig(DataSourceConfig):
    """Handwritten digits of 8 x 8 px (scikit-learn's copy of UCI Optical Recognition)."""

    provides_masks: ClassVar[bool] = True

    split: Split = Field("train", description="test: every fifth image of each class, 355 in total")
    mask_threshold: float = Field(
        0.4, ge=0, lt=1, description="pixels brighter than this (0 to 1) are segment 1 of the mask"
    )

    def class_count(self) -> int:
        """Ten digits."""
        return 10

    def image_count(self) -> int:
        """Those of the split."""
        return {"train": 1442, "test": 355}[self.split]

    def known_class_names(self) -> Sequence[str]:
        """The digits."""
        return tuple(map(str, range(10)))


class IdxConfig(DataSourceConfig):
    """Files in MNIST's format: ``train-images-idx3-ubyte`` and the like, plain or ``.gz``."""

    provides_masks: ClassVar[bool] = True
    locations = frozenset({"folder", "split"})
    paths = frozenset({"folder"})

    folder: PathText | tuple[PathText, ...] = Field(
        description="folder of the four files, or several folders; the first that exists is used"
    )
    split: Split = Field("train", description="test: the files named t10k-...")
    class_names: tuple[str, ...] | None = Field(
        None, min_length=1, description="names in the order of the labels; null: the labels"
    )
    limit: Count | None = Field(None, description="use only the first images; null: all")
    fit: Literal["pad", "resize"] | None = Field(
        None,
        description="how to reach `data.image_size`: pad with zeros, or resize bilinearly; null: "
        "pad if it is at most a quarter larger, else resize",
    )
    mask_threshold: float = Field(
        0.05, ge=0, lt=1, description="pixels brighter than this (0 to 1) are segment 1 of the mask"
    )

    @property
    def folders(self) -> tuple[str, ...]:
        """The candidate folders, in order."""
        return (self.folder,) if isinstance(self.folder, str) else self.folder

    def class_count(self) -> int | None:
        """Number of ``class_names``; None without them."""
        return None if self.class_names is None else len(self.class_names)

    def missing(self) -> str | None:
        """A message if a folder or file of the split is missing, else None."""
        files = find_idx_files(self.folders, self.split)
        return files if isinstance(files, str) else None

    def data_files(self) -> Mapping[str, Path] | None:
        """The files of images and labels; None if one is missing."""
        files = find_idx_files(self.folders, self.split)
        return None if isinstance(files, str) else {"images": files[0], "labels": files[1]}

    def known_class_names(self) -> Sequence[str] | None:
        """``class_names``; None without them."""
        return self.class_names


class ImageFolderConfig(DataSourceConfig):
    """``folder[/split]/class/**/image.jpg``; a class is a folder, classes are sorted by name.

    A folder of images without class folders is one class.
    """

    # Two only check the files, the last one saves time.
    without_effect = frozenset({"images", "classes", "cache_gib"})
    former_defaults: ClassVar = {"background": STORED}
    locations = frozenset({"folder", "split", "masks", "exclude"})
    paths = frozenset({"folder", "masks"})

    folder: PathText = Field(description="root of the data set")
    split: PathText | None = Field(
        None, description="subfolder that holds the class folders (train, val); null: the root"
    )
    holdout: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the images that `data.test` reads, chosen by a hash of their names; "
        "`data.train` reads the others; null: read all",
    )
    part: Split = Field("train", description="with `holdout`: which of the two parts to read")
    exclude: tuple[str, ...] = Field(
        (),
        description="names of images to leave out, relative to the folder of the classes; `*` and "
        "`?` stand for any text and any character",
    )
    background: Background = Field(
        "white",
        description="color under transparent pixels: white, black or [red, green, blue] from 0 to "
        "255; stored: ignore transparency",
    )
    masks: PathText | None = Field(
        None,
        description="folder of segmentation masks: PNG files with the names of the images, in "
        "folders named like the class folders; null: none",
    )
    images: Count | None = Field(
        None, description="expected number of images, to detect missing ones; null: any"
    )
    classes: Count | None = Field(None, description="expected number of class folders; null: any")
    reduced_jpeg: bool = REDUCED_JPEG
    cache_gib: float = Field(
        4.0,
        ge=0,
        description="largest size, GiB, of the cache of cropped images in the user's cache; a "
        "folder that needs more is decoded at every read; 0: no cache",
    )

    def has_masks(self) -> bool:
        """Whether ``masks`` is set."""
        return self.masks is not None

    @property
    def masks_root(self) -> Path | None:
        """The folder of the masks; None if ``masks`` is not set."""
        return None if self.masks is None else Path(self.masks).expanduser()

    @property
    def root(self) -> Path:
        """The folder of the class folders."""
        root = Path(self.folder).expanduser()
        return root / self.split if self.split else root

    def expected(self) -> tuple[int, int] | None:
        """Expected numbers of images and classes, if both are set."""
        if self.images is None or self.classes is None:
            return None
        return self.images, self.classes

    def class_count(self) -> int | None:
        """The expected number of classes; None if not set."""
        return self.classes

    def image_count(self) -> int | None:
        """The expected number of images; None if not set."""
        return self.images

    def missing(self) -> str | None:
        """A message if the folder, class folders, images or masks are missing, else None."""
        listing = self.listing()
        if listing.problem is not None or self.masks_root is None:
            return listing.problem
        return problem_of_masks(self.masks_root, list(listing.names()))

    def listing(self) -> Listing:
        """The classes and their images, listed again after a change."""
        part = None if self.holdout is None else Part(self.holdout, self.part == "test")
        return list_images(self.root, self.classes, part, self.exclude)

    @model_validator(mode="after")
    def _part_of_something(self) -> Self:
        if self.part == "test" and self.holdout is None:
            raise ValueError("`part: test` needs `holdout`, such as holdout=0.15")
        return self

    def data_files(self) -> Mapping[str, Path] | None:
        """The images and masks; None if something is missing."""
        images, masks = self.image_files(), self.masks_root
        if images is None or self.missing() is not None:
            return None
        if masks is None:
            return images
        # No name of an image begins with a slash.
        return {**images, **{f"/masks/{name}": masks / mask_name(name) for name in images}}

    def known_class_names(self) -> Sequence[str] | None:
        """Names of the class folders; None if something is missing."""
        listing = self.listing()
        return None if listing.problem is not None else tuple(listing.classes)

    def image_files(self) -> Mapping[str, Path] | None:
        """The images; None if something is missing."""
        listing, root = self.listing(), self.root
        if listing.problem is not None:
            return None
        return {name: Path(f"{root}/{name}") for name in listing.names()}

    def image_counts(self) -> Mapping[str, int] | None:
        """Number of images of each class; None if something is missing."""
        listing = self.listing()
        if listing.problem is not None:
            return None
        return {name: len(names) for name, names in listing.classes.items()}

    def left_out(self) -> str | None:
        """Counts of what is in the folder but not read, by reason."""
        return self.listing().summary or None

    def read_before(self) -> str | None:
        """Version 0.1.0 read hidden folders, followed no links and knew five suffixes."""
        listing = self.listing()
        if self.holdout is not None or self.exclude or FLAT in listing.classes:
            return None
        now = {name for names in listing.classes.values() for name in names}
        before = set(read_by_first_version(self.root, listing.classes))
        if listing.problem is not None or now == before:
            return None
        return (
            f"an earlier version read {len(before)} images here: {len(before - now)} that are left "
            f"out now, and not {len(now - before)} others; stages that it finished are kept, and "
            f"the others read the {len(now)} images of today; for all stages to read the same, "
            "start a new run with another --run-dir"
        )


def _relative(pattern: str) -> str:
    if not pattern or pattern.startswith("/") or "\0" in pattern:
        raise ValueError("expected a pattern of names in the folder, such as train-*.tar")
    return pattern


def _extension(text: str) -> str:
    if not text or text != text.lower() or text.startswith(".") or "/" in text:
        raise ValueError("expected an extension in lower case without the first dot, such as jpg")
    return text


Extension = Annotated[str, AfterValidator(_extension)]
Pattern = Annotated[str, AfterValidator(_relative)]
Column = Annotated[str, Len(1)]


class ShardsConfig(DataSourceConfig):
    """Files that hold many images each, with the numbers of their classes."""

    without_effect = frozenset({"images", "classes"})  # they only check the files
    locations = frozenset({"folder", "pattern"})
    paths = frozenset({"folder"})

    folder: PathText = Field(description="folder of the files")
    pattern: Pattern
    image: str | None
    label: str
    class_names: tuple[str, ...] | None = Field(
        None, min_length=1, description="names in the order of the labels; null: the labels"
    )
    images: Count | None = Field(
        None, description="expected number of images, to detect missing ones; null: any"
    )
    classes: Count | None = Field(None, description="expected number of classes; null: any")
    reduced_jpeg: bool = REDUCED_JPEG
    background: Background = Field(
        STORED,
        description="color under transparent pixels: white, black or [red, green, blue] from 0 to "
        "255; stored: ignore transparency",
    )

    @property
    def root(self) -> Path:
        """The folder of the files."""
        return Path(self.folder).expanduser()

    def shards(self) -> Mapping[str, Path] | str:
        """The files by name, or a message if there are none."""
        return find_shards(self.root, self.pattern)

    def expected(self) -> tuple[int, int] | None:
        """Expected numbers of images and classes, if both are set."""
        count = self.class_count()
        return None if self.images is None or count is None else (self.images, count)

    def class_count(self) -> int | None:
        """Number of ``class_names``, else the expected number of classes; None if not set."""
        return self.classes if self.class_names is None else len(self.class_names)

    def image_count(self) -> int | None:
        """The expected number of images; None if not set."""
        return self.images

    def missing(self) -> str | None:
        """A message if the folder or the files are missing, else None."""
        shards = self.shards()
        return shards if isinstance(shards, str) else None

    def data_files(self) -> Mapping[str, Path] | None:
        """The files; None if they are missing."""
        shards = self.shards()
        return None if isinstance(shards, str) else shards

    def known_class_names(self) -> Sequence[str] | None:
        """``class_names``; None without them."""
        return self.class_names

    @model_validator(mode="after")
    def _one_number_of_classes(self) -> Self:
        names = self.class_names
        if names is not None and self.classes not in (None, len(names)):
            raise ValueError(f"`classes` is {self.classes}, but `class_names` has {len(names)}")
        return self


class WebDatasetConfig(ShardsConfig):
    """Tar files in which ``0001.jpg`` is an image and ``0001.cls`` the number of its class."""

    folder: PathText = Field(description="folder of the tar files")
    pattern: Pattern = Field(
        "*.tar", description="names of the tar files, such as train-*.tar; they are read sorted"
    )
    image: Extension | None = Field(
        None, description="extension of the images; null: any format that Pillow reads"
    )
    label: Extension = Field("cls", description="extension of the files with the class's number")


class ParquetConfig(ShardsConfig):
    """Parquet files with a column of images and one of class numbers."""

    folder: PathText = Field(description="folder of the parquet files")
    pattern: Pattern = Field(
        "*.parquet",
        description="names of the files, such as train-*.parquet; they are read sorted",
    )
    image: Column = Field(
        "image",
        description="column of the images: bytes of image files, or structs with a field `bytes`, "
        "as Hugging Face's datasets stores them",
    )
    label: Column = Field("label", description="column of the class's number")

    def missing(self) -> str | None:
        """A message if pyarrow, the folder or the files are missing, else None."""
        if find_spec("pyarrow") is None:
            return "`parquet` needs the package pyarrow: pip install 'pae-framework[parquet]'"
        return super().missing()


SHAPE_CLASSES = 8


class ShapesConfig(DataSourceConfig):
    """Scenes generated from a seed: a large shape, which is the class, before smaller ones."""

    provides_masks: ClassVar[bool] = True

    split: Split = Field("train", description="the two splits have different scenes")
    count: Count = Field(5000, description="number of images")
    seed: Seed = Field(0, description="image i is a function of (seed, split, i) only")
    objects: int = Field(3, ge=1, le=8, description="shapes per scene, including the large one")

    def class_count(self) -> int:
        """One class per kind of shape."""
        return SHAPE_CLASSES

    def image_count(self) -> int:
        """As configured."""
        return self.count
