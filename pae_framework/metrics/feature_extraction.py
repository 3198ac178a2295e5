"""Features of sets of images, extracted in chunks that are cached under what made them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
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
from pae_framework.system.user_cache import user_cache

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
    if (cache := user_cache()) is None:
        raise DataError("this user has no home for a cache; set XDG_CACHE_HOME")
    return cache / "features"


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
    folder = cache / _key(images, identity, network, device)
    _require_space(folder, len(images), network.widths)
    done = cached = 0
    for start in range(0, len(images), CHUNK):
        stop = min(start + CHUNK, len(images))
        file = _chunk_file(folder, start)
        features = _read(file, stop - start, network.widths)
        if features is not None:
            done, cached = stop, cached + stop - start
            show(done, cached)
        else:
            parts = []
            firsts = range(start, stop, batch_size)
            batches = [range(first, min(first + batch_size, stop)) for first in firsts]
            with closing(one_ahead(partial(_pixels, images, device), batches)) as read:
                for batch, pixels in zip(batches, read, strict=True):
                    parts.append(network(pixels))
                    done = batch.stop
                    show(done, cached)
            features = InceptionFeatures(*map(torch.cat, zip(*parts, strict=True)))
            write_features(file, features._asdict())
        yield features


def _pixels(images: ImageSet, device: str, batch: range) -> Tensor:
    """Images of a batch; in pinned memory for a GPU, which then copies them by itself."""
    pixels = images.read(batch)
    return pixels.pin_memory() if device == "cuda" else pixels


def _require_space(folder: Path, count: int, widths: tuple[int, int]) -> None:
    starts = range(0, count, CHUNK)
    missing = [start for start in starts if not _chunk_file(folder, start).is_file()]
    images = sum(min(CHUNK, count - start) for start in missing)
    require_space(folder, 4 * images * sum(widths))


def _chunk_file(folder: Path, start: int) -> Path:
    return folder / f"{start:08d}.safetensors"


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
