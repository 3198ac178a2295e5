"""Features of sets of images, extracted in chunks that are cached under what made them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from pae_framework.contracts import InceptionNetwork
from pae_framework.data.image_set import ImageSet
from pae_framework.errors import DataError
from pae_framework.metrics.feature_files import read_features, write_features
from pae_framework.metrics.features import InceptionFeatures
from pae_framework.system.background import one_ahead
from pae_framework.system.file_errors import require_space
from pae_framework.system.files import json_digest

CHUNK = 500
"""Images of a chunk; an interruption loses at most one."""
_VERSION = 1
"""Increase it if the same network computes other features from the same images."""

Show = Callable[[int, int], None]
"""Called with the number of images done, and of those among them that were cached."""


def default_cache() -> Path:
    """Folder of the cache of this user.

    Raises:
        DataError: the user has no home.
    """
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:
        raise DataError("this user has no home for a cache; set XDG_CACHE_HOME") from None
    return home / "pae_framework" / "features"


def extract(
    images: ImageSet,
    identity: str,
    network: InceptionNetwork,
    cache: Path,
    batch_size: int,
    show: Show,
    device: str = "cpu",
) -> Iterator[InceptionFeatures]:
    """The features of all images, chunk by chunk; a chunk that is cached is not computed.

    A thread reads the next batch while the network processes one.

    Args:
        images: the images.
        identity: of their contents.
        network: the network.
        cache: folder for all sets; about 16 KB for each image.
        batch_size: images that the network processes at once; does not change the features.
        show: shows progress.
        device: type of the device of the network, which has kernels of its own.

    Raises:
        DataError: an image cannot be read.
        WriteError: the cache cannot be written, or has too little space; this is found first.
    """
    chunks = FeatureChunks(images, identity, network, cache, batch_size, device)
    chunks.require_space()
    cached = 0
    for number in range(len(chunks)):
        features = chunks.cached(number)
        if features is None:
            features = chunks.extract(number, show, cached)
        else:
            span = chunks.span(number)
            cached += len(span)
            show(span.stop, cached)
        yield features


@dataclass(frozen=True)
class FeatureChunks:
    """The chunks in which features of a set of images are extracted and cached.

    Args:
        images: the images.
        identity: of their contents.
        network: the network.
        cache: folder for all sets.
        batch_size: images that the network processes at once; does not change the features.
        device: type of the device of the network.
    """

    images: ImageSet
    identity: str
    network: InceptionNetwork
    cache: Path
    batch_size: int
    device: str = "cpu"

    @cached_property
    def folder(self) -> Path:
        """Folder of the chunks of this set."""
        return self.cache / _key(self.images, self.identity, self.network, self.device)

    def __len__(self) -> int:
        return -(-len(self.images) // CHUNK)

    def span(self, number: int) -> range:
        """Indices of the images of a chunk."""
        return range(number * CHUNK, min((number + 1) * CHUNK, len(self.images)))

    def cached(self, number: int) -> InceptionFeatures | None:
        """The features of a chunk; None if they were not extracted, or the file is damaged."""
        return _read(self._file(number), len(self.span(number)), self.network.widths)

    def missing(self) -> list[int]:
        """The chunks that are not cached.

        Raises:
            WriteError: there is too little space for them.
        """
        self.require_space()
        return [number for number in range(len(self)) if self.cached(number) is None]

    def extract(self, number: int, show: Show, cached: int) -> InceptionFeatures:
        """Extract the features of a chunk and write them.

        Args:
            number: of the chunk.
            show: called with the number of images up to the end of each batch, and with ``cached``.
            cached: number of images whose features were cached.

        Raises:
            DataError: an image cannot be read.
            WriteError: the cache cannot be written.
        """
        span, size, parts = self.span(number), self.batch_size, []
        batches = [span[first : first + size] for first in range(0, len(span), size)]
        with closing(one_ahead(partial(_pixels, self.images, self.device), batches)) as read:
            for batch, pixels in zip(batches, read, strict=True):
                parts.append(self.network(pixels))
                show(batch.stop, cached)
        features = InceptionFeatures(*map(torch.cat, zip(*parts, strict=True)))
        write_features(self._file(number), features._asdict())
        return features

    def require_space(self) -> None:
        """Check that the missing chunks fit on the disk.

        Raises:
            WriteError: there is too little space.
        """
        absent = [number for number in range(len(self)) if not self._file(number).is_file()]
        images = sum(len(self.span(number)) for number in absent)
        require_space(self.folder, 4 * images * sum(self.network.widths))

    def _file(self, number: int) -> Path:
        return self.folder / f"{number * CHUNK:08d}.safetensors"


def _pixels(images: ImageSet, device: str, batch: range) -> Tensor:
    """Images of a batch; in pinned memory for a GPU, which then copies them by itself."""
    pixels = images.read(batch)
    return pixels.pin_memory() if device == "cuda" else pixels


def _key(images: ImageSet, identity: str, network: InceptionNetwork, device: str) -> str:
    """Name of the folder of a set: a hash of all that its features depend on."""
    made_by = {
        "images": identity,
        "count": len(images),
        "size": list(images.size),
        "crop": images.crop,
        "weights": network.sha256,
        "device": device,
        "versions": {name: version(name) for name in ("torch", "torch-fidelity", "pillow")},
        "chunk": CHUNK,
        "version": _VERSION,
    }
    return json_digest(made_by)


def _read(file: Path, count: int, widths: tuple[int, int]) -> InceptionFeatures | None:
    """The features of a chunk; None if it is not there, or damaged."""
    tensors = read_features(file)
    if tensors is None:
        return None
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != {"pool": (count, widths[0]), "spatial": (count, widths[1])}:
        return None
    return InceptionFeatures(tensors["pool"], tensors["spatial"])
