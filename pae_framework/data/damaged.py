"""Replace, record and count training images that cannot be read, up to a limit."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from pae_framework.contracts import DataSource, LabeledImage
from pae_framework.errors import DataError
from pae_framework.system.file_errors import writing
from pae_framework.system.files import make_folder, read_text, write_text
from pae_framework.system.printing import printable

logger = logging.getLogger(__name__)

PAUSE = 0.5
"""Seconds before the second attempt to read a file after an error of the operating system."""


class SkippingSource(DataSource):
    """A source that replaces each damaged image by the next readable one.

    The replacement depends on the files alone, so a resumed training, or one with another number of
    workers, sees the same images. Each damaged image is one line ``index <tab> reason`` of a record
    to which all processes of a stage append. An image that a second attempt reads is not damaged.

    Args:
        source: the images.
        record: the file that lists damaged images. Images that are readable again are removed.
        limit: largest number of damaged images.
    """

    def __init__(self, source: DataSource, record: Path, limit: int):
        super().__init__(source.config, source.image_size)
        self._source, self._record, self._limit = source, record, limit
        self._drop_repaired()

    @property
    def class_names(self) -> Sequence[str]:
        """Class names of the source."""
        return self._source.class_names

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> LabeledImage:
        """The image at ``index``, or the first readable one after it.

        Raises:
            DataError: more images are damaged than the limit.
        """
        for offset in range(len(self)):
            candidate = (index + offset) % len(self)
            try:
                return self._read(candidate)
            except DataError as error:
                self._record_damage(candidate, error)
        raise DataError(f"none of the {len(self)} training images can be read; see {self._record}")

    def labels(self) -> Sequence[int] | None:
        """Labels of the source."""
        return self._source.labels()

    def mask(self, index: int) -> Tensor | None:
        """Mask of the source at ``index``."""
        return self._source.mask(index)

    def _read(self, index: int) -> LabeledImage:
        try:
            return self._source[index]
        except DataError as error:
            # Errors with a number come from the operating system (disk, too many open files).
            if getattr(error.__cause__, "errno", None) is not None:
                time.sleep(PAUSE)
            return self._source[index]

    def _drop_repaired(self) -> None:
        known = damaged_indices(self._record)
        repaired = {index for index in known if index >= len(self) or self._is_readable(index)}
        if repaired:
            lines = self._record.read_text(encoding="utf-8").splitlines(keepends=True)
            damaged = [line for line in lines if _index(line) not in repaired]
            write_text(self._record, "".join(damaged))

    def _is_readable(self, index: int) -> bool:
        try:
            self._read(index)
        except DataError:
            return False
        return True

    def _record_damage(self, index: int, error: DataError) -> None:
        known = damaged_indices(self._record)
        if index not in known:
            known.add(index)
            make_folder(self._record.parent)
            reason = printable(" ".join(str(error).split()))
            # One short write in append mode, so lines of several processes do not mix.
            with writing(self._record), self._record.open("a", encoding="utf-8") as file:
                file.write(f"{index}\t{reason}\n")
            logger.warning("%s; using the next image instead", reason)
        if len(known) > self._limit:
            raise DataError(
                f"{error}. Damaged training images: {len(known)}, listed in {self._record}, but "
                f"data.max_damaged is {self._limit}; repair or remove them, or set "
                f"data.max_damaged={len(known)} or more"
            ) from error


def damaged_indices(record: Path) -> set[int]:
    """Indices of the damaged images that a record lists.

    Raises:
        DataError: the record itself is damaged.
    """
    try:
        return {_index(line) for line in read_text(record).splitlines()}
    except FileNotFoundError:
        return set()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{record} is damaged: {error}; remove it, and it is written again"
        ) from error


def _index(line: str) -> int:
    return int(line.partition("\t")[0])
