"""Sets of images that a command names: an npz file, a folder, a run's samples, a recipe's data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from pae_framework.build import build_source
from pae_framework.contracts import DataSource, origin_of, sampling_of
from pae_framework.data.contents import cached_contents
from pae_framework.data.image_set import FolderImages, ImageSet
from pae_framework.data.images import read_images
from pae_framework.data.npz import NpzImages
from pae_framework.data.pixels import UINT8
from pae_framework.errors import DataError, UsageError
from pae_framework.execution.context import initial_weights
from pae_framework.recipe.components import DataSourceComponent
from pae_framework.recipe.library import exists
from pae_framework.recipe.load import load_recipe
from pae_framework.registry import Registry
from pae_framework.runs.opened import open_directory
from pae_framework.sampling.sample_set import SETS, read_entries
from pae_framework.system.files import json_digest

KINDS = "expected an npz file, a folder of images, a run, or RECIPE:train or RECIPE:test"
_SPLITS = ("train", "test")


@dataclass(frozen=True)
class NamedSet:
    """A set of images, and what is known of their origin."""

    images: ImageSet
    origin: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=lambda: {"uint8": "as in the files"})

    def subject(self, digest: str) -> dict[str, Any]:
        """The set as the subject of metrics; ``digest``: of its contents."""
        return {
            "samples": self.images.name,
            "samples_digest": f"xxh3 {digest}",
            "formats": self.images.formats,
            **self.origin,
        }

    @property
    def protocol(self) -> dict[str, Any]:
        """How the images were made, for the protocol of metrics."""
        height, width = self.images.size
        return {"image_size": f"{height} x {width}", "crop": self.images.crop, **self.sampling}


class SourceImages:
    """The images of a data source of a recipe."""

    formats = "as in the data source"

    def __init__(self, name: str, component: DataSourceComponent, source: DataSource):
        self.name, self._component, self._source = name, component, source

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return self._source.image_size, self._source.image_size

    @property
    def crop(self) -> str:
        """That of the data source, with its name and size."""
        return f"that of {self._component.use} to {self._source.image_size} px"

    def __len__(self) -> int:
        return len(self._source)

    def identity(self) -> str:
        """Digest of the settings of the source and the contents of its files."""
        config = self._component.config
        values = config.hashed() if config.former_defaults else config.model_dump(mode="json")
        settings = {key: values[key] for key in values.keys() - config.locations}
        files = config.data_files()
        contents = None if files is None else cached_contents(files).identity
        return json_digest([self._component.use, config.version, settings, contents])

    def read(self, indices: Sequence[int]) -> Tensor:
        """Images (B, 3, S, S) uint8 at the indices."""
        return read_images(self._source, indices)[0]


def open_image_set(
    text: str, side: int | None, registry: Callable[[], Registry], option: str
) -> NamedSet:
    """The set of images that a user named; reads headers only.

    Args:
        text: what was named.
        side: side in px to crop images of folders and data sources to; None: none, or the recipe's.
        registry: the installed plugins, for the data of a recipe.
        option: where it was named, for messages.

    Raises:
        UsageError: there is no such thing.
        DataError: it cannot be read, or does not hold images of one size.
    """
    recipe, _, split = text.rpartition(":")
    path = named_path(text, option)
    if recipe and split in _SPLITS and not exists(path):
        return _data_of_recipe(recipe, split, side, registry())
    if not text or not exists(path):
        raise UsageError(f"{option}: no such file or folder: {text or 'nothing'} ({KINDS})")
    if path.is_dir() and not (path / "run.json").is_file():
        return NamedSet(FolderImages(path, side))
    named = _samples_of_run(path) if path.is_dir() else NamedSet(NpzImages(path))
    if side is not None and named.images.size != (side, side):
        found = " x ".join(map(str, named.images.size))
        raise DataError(
            f"{named.images.name} holds images of {found} px, which --size does not change; write "
            "them as a folder of images, and they are cropped"
        )
    return named


def named_path(text: str, option: str) -> Path:
    """The path that a user named; ``option``: where.

    Raises:
        UsageError: it begins with the home of an unknown user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{option} {text}: {error}") from error


def _data_of_recipe(recipe: str, split: str, side: int | None, registry: Registry) -> NamedSet:
    data = load_recipe(recipe, (), registry).recipe.data
    component = data.train if split == "train" else data.test
    if (missing := component.config.missing()) is not None:
        raise DataError(f"data.{split} of {recipe}: {missing}")
    with initial_weights(0, "data"):
        source = build_source(component, side or data.image_size, registry)
    return NamedSet(SourceImages(f"data.{split} of {recipe}", component, source))


def _samples_of_run(path: Path) -> NamedSet:
    """The samples of a run with the recipe's settings, of the last weights."""
    directory = open_directory(path)
    planned = directory.plan.get("sample")
    if planned is None or not directory.stage(planned).done:
        raise UsageError(f"{path} has no finished samples; run its stage `sample` first")
    results = directory.results(planned)
    entry = next(e for e in read_entries(results.file(SETS)) if e["role"] == "main")
    images = NpzImages(results.file(entry["file"]))
    origin = {"run": str(path), **origin_of(entry["protocol"])}
    return NamedSet(images, origin, {"uint8": UINT8, **sampling_of(entry["protocol"])})
