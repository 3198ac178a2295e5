"""Reference files: statistics and images that samples are compared with, in npz files.

The ADM evaluator's files hold ``mu``, ``sigma``, ``mu_s``, ``sigma_s`` of a whole training set, and
10 000 of its images as ``arr_0``; those of pytorch-fid only ``mu`` and ``sigma``. Ours are ADM's
with a ``protocol``.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from pae_framework.data.image_set import ImageSet
from pae_framework.data.npz import (
    IMAGES_ARRAY,
    NpzImages,
    array_headers,
    images_problem,
    read_array,
)
from pae_framework.errors import DataError
from pae_framework.metrics.conventions import (
    IMAGES,
    SPATIAL_STATISTICS,
    STATISTICS,
    network_protocol,
)
from pae_framework.metrics.feature_statistics import Moments
from pae_framework.metrics.features import Reference, SetFeatures
from pae_framework.metrics.inception import PUBLISHED, WeightsIdentity
from pae_framework.system.files import file_digest, replacing

PROTOCOL = "protocol"
"""Array of our files: JSON text that says how the file was made."""
_BATCH = 100

_ARRAYS = {STATISTICS: ("mu", "sigma"), SPATIAL_STATISTICS: ("mu_s", "sigma_s")}


class ReferenceFile:
    """A reference file, of which only the headers were read.

    Raises:
        DataError: the file is missing or damaged, or holds neither statistics nor images.
    """

    def __init__(self, path: Path):
        self.path = path
        self._headers = array_headers(path)
        self._missing = {
            part: f"the reference lacks {part}"
            for part, names in _ARRAYS.items()
            if not self._headers.keys() >= set(names)
        }
        if IMAGES_ARRAY not in self._headers:
            self._missing[IMAGES] = f"the reference lacks {IMAGES}"
        elif problem := images_problem(self._headers):
            raise DataError(f"{path} {problem}")
        if self._missing.keys() >= {STATISTICS, IMAGES}:
            found = ", ".join(self._headers) or "no array"
            raise DataError(
                f"{path} is no reference: it has neither {STATISTICS} nor {IMAGES_ARRAY} "
                f"(found: {found}); `pae reference build` writes one"
            )

    @property
    def has_statistics(self) -> bool:
        """Whether it holds statistics; otherwise they are those of its images."""
        return STATISTICS not in self._missing

    @property
    def of_unknown_resize(self) -> bool:
        """Whether its statistics are neither ours nor ADM's, whose files also have spatial ones."""
        return self.has_statistics and self.protocol is None and SPATIAL_STATISTICS in self._missing

    @cached_property
    def protocol(self) -> dict[str, Any] | None:
        """How it was made; None for the files of others."""
        if PROTOCOL not in self._headers:
            return None
        try:
            protocol = json.loads(str(read_array(self.path, PROTOCOL)))
            if not isinstance(protocol, dict):
                raise ValueError("it is no object")
        except ValueError as error:
            raise DataError(f"{self.path}: its protocol cannot be read: {error}") from error
        return protocol

    @cached_property
    def images(self) -> NpzImages | None:
        """Its images, if it has any."""
        return None if IMAGES in self._missing else NpzImages(self.path)

    def missing(self, weights: WeightsIdentity) -> dict[str, str]:
        """The parts that cannot be used with these weights, and why."""
        if not self.has_statistics:
            assert self.images is not None
            return missing_of_images(len(self.images))
        made = str((self.protocol or {}).get("extractor_sha256", PUBLISHED))
        if made == weights.sha256 or (weights.published and made.startswith(PUBLISHED)):
            return dict(self._missing)
        reason = (
            f"the reference's statistics are in features of {WeightsIdentity(made).words}, not of "
            f"{weights.words}"
        )
        return {**dict.fromkeys(_ARRAYS, reason), **self._missing}

    def moments(self, part: str, width: int) -> Moments:
        """Statistics of features of a width.

        Raises:
            DataError: they are damaged, or of features of another width.
        """
        names = _ARRAYS[part]
        mean, covariance = (self._numbers(name) for name in names)
        shapes = tuple(mean.shape), tuple(covariance.shape)
        if shapes != ((width,), (width, width)):
            raise DataError(
                f"{self.path}: {names[0]} is {shapes[0]} and {names[1]} is {shapes[1]}, expected "
                f"({width},) and ({width}, {width}): they are of other features"
            )
        for name, tensor in zip(names, (mean, covariance), strict=True):
            if not tensor.isfinite().all():
                raise DataError(f"{self.path}: {name} contains NaN or infinity; write it again")
        if problem := _covariance_problem(covariance):
            raise DataError(f"{self.path}: {names[1]} {problem}, so it is no covariance")
        return Moments(mean, covariance)

    def _numbers(self, name: str) -> Tensor:
        array = read_array(self.path, name)
        if array.dtype.kind != "f":
            raise DataError(f"{self.path}: {name} is {array.dtype}, expected floats")
        return torch.from_numpy(array.astype(np.float64))

    def require_size(self, size: tuple[int, int], name: str) -> None:
        """Check that its images have the size of the samples, if it is known.

        Args:
            size: height and width of the samples in px.
            name: of the samples, for the message.

        Raises:
            DataError: they have another size.
        """
        found = (self.protocol or {}).get("image_size")
        if self.images is not None:
            found = _by(self.images.size)
        require_size(found, size, name)

    def load(
        self,
        parts: Collection[str | None],
        widths: tuple[int, int],
        extract: Callable[[NpzImages], SetFeatures],
    ) -> Reference:
        """The parts that are needed. Statistics are those of the file, else those of its images.

        Args:
            parts: what metrics need, none of it missing.
            widths: of the pooled and spatial features.
            extract: computes features of its images, if they are needed.

        Raises:
            DataError: statistics are damaged, or of other features.
        """
        if not self.has_statistics:
            assert self.images is not None
            return Reference.of_images(extract(self.images), self.describe())
        moments = [
            self.moments(part, width) if part in parts else None
            for part, width in zip(_ARRAYS, widths, strict=True)
        ]
        rows = extract(self.images).rows if self.images is not None and IMAGES in parts else None
        return Reference(moments[0], moments[1], rows, self.describe(), self.count)

    def describe(self) -> dict[str, Any]:
        """The reference in the protocol of metrics."""
        made = {k: v for k, v in (self.protocol or {}).items() if k != "environment"}
        return {
            "reference": str(self.path),
            "reference_digest": f"xxh3 {file_digest(self.path)}",
            "reference_protocol": made or "not stated in the file",
        }

    @property
    def count(self) -> int | None:
        """Number of images behind the statistics; None if the file does not say it."""
        count = (self.protocol or {}).get("count")
        return count if isinstance(count, int) else None


def _covariance_problem(matrix: Tensor) -> str | None:
    """Why a finite square matrix is no covariance, beyond rounding to float32; None if it is."""
    tolerance = 1e-5 * torch.linalg.matrix_norm(matrix)
    if tolerance == 0:
        return None
    if (matrix - matrix.T).abs().max() > tolerance:
        return "is not symmetric"
    shifted = matrix + tolerance * torch.eye(len(matrix), dtype=matrix.dtype)
    _, failed = torch.linalg.cholesky_ex(shifted)
    return "has a negative eigenvalue" if failed else None


def missing_of_images(count: int) -> dict[str, str]:
    """The parts that a reference of this many images, without statistics, lacks, and why."""
    if count >= 2:
        return {}
    return dict.fromkeys(_ARRAYS, f"it needs at least 2 images in the reference, not {count}")


def require_size(found: str | None, size: tuple[int, int], name: str) -> None:
    """Check that samples of a size, called ``name``, fit a reference of images ``H x W``.

    Raises:
        DataError: they do not; None fits any.
    """
    if found not in (None, _by(size)):
        raise DataError(
            f"{name}: the images have {_by(size)} px, those of the reference {found} px; use a "
            "reference of this size, or crop folders of images to one size with --size"
        )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def write_reference(
    path: Path,
    images: ImageSet,
    chosen: Sequence[int],
    features: SetFeatures,
    weights: WeightsIdentity,
    protocol: Mapping[str, Any],
) -> None:
    """Write a reference file for this and the ADM evaluator, atomically.

    Args:
        path: of the file.
        images: the set.
        chosen: ascending indices of the images that are stored, one batch in memory at a time.
        features: of all images.
        weights: of the network that computed them.
        protocol: what the images are.

    Raises:
        WriteError: it cannot be written.
        DataError: an image cannot be read, or there are fewer than two.
    """
    described = {**protocol, **network_protocol(weights), "count": features.pool.count}
    arrays = {
        "mu": features.pool.mean,
        "sigma": features.pool.covariance,
        "mu_s": features.spatial.mean,
        "sigma_s": features.spatial.covariance,
    }
    height, width = images.size
    header = {
        "descr": "|u1",
        "fortran_order": False,
        "shape": (len(chosen), height, width, 3),
    }
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        if chosen:
            with archive.open(f"{IMAGES_ARRAY}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(cast(BinaryIO, member), header)
                for start in range(0, len(chosen), _BATCH):
                    batch = images.read(chosen[start : start + _BATCH])
                    member.write(batch.permute(0, 2, 3, 1).contiguous().numpy().data)
        for name, tensor in arrays.items():
            _write_array(archive, name, tensor.numpy())
        _write_array(archive, PROTOCOL, np.array(json.dumps(described)))


def _write_array(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(cast(BinaryIO, member), array, allow_pickle=False)
