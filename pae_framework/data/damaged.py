"""Replace, record and count training images that cannot be read, up to a limit."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
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
    workers, sees the same images. Each damaged image is one line ``index <tab> reason`` of a
    record. An image that a second attempt reads is not damaged.

    The processes of a stage may be on several machines, whose appends to one file could be lost. So
    each of them appends to a record of its own, together with its workers, and counts those of all
    against the limit. The main process merges them (:meth:`merge_records`).

    Args:
        source: the images.
        record: the file that lists damaged images.
        limit: largest number of damaged images.
        rank: index of this process among those of the stage; 0 is the main process.
    """

    def __init__(self, source: DataSource, record: Path, limit: int, rank: int = 0):
        super().__init__(source.config, source.image_size)
        self._source, self._record, self._limit = source, record, limit
        self._own = record.with_stem(f"{record.stem}-rank{rank}") if rank else record

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

    def merge_records(self) -> None:
        """Merge the records of all processes into one, sorted, and log what others have found.

        For the main process, while no other reads images.

        Raises:
            DataError: a record is damaged.
        """
        lines = {_index(line): line for line in _lines(self._record)}
        others = [record for record in _all_records(self._record) if record != self._record]
        for record in others:
            for line in _lines(record):
                if _index(line) not in lines:  # the other process has logged it in its own log
                    _warn(line.partition("\t")[2])
                lines.setdefault(_index(line), line)
        self._write(lines)
        for record in others:
            record.unlink(missing_ok=True)

    def drop_repaired(self) -> None:
        """Remove images from the merged record that are readable again, or no longer there."""
        lines = {_index(line): line for line in _lines(self._record)}
        self._write({index: line for index, line in lines.items() if not self._is_repaired(index)})

    def _write(self, lines: Mapping[int, str]) -> None:
        content = [lines[index] for index in sorted(lines)]
        if content != _lines(self._record):
            write_text(self._record, "".join(f"{line}\n" for line in content))

    def _is_repaired(self, index: int) -> bool:
        return index >= len(self) or self._is_readable(index)

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
            make_folder(self._own.parent)
            reason = printable(" ".join(str(error).split()))
            # One short write in append mode, so lines of several workers do not mix.
            with writing(self._own), self._own.open("a", encoding="utf-8") as file:
                file.write(f"{index}\t{reason}\n")
            _warn(reason)
        if len(known) > self._limit:
            several = len(_all_records(self._record)) > 1
            pattern = self._record.with_stem(f"{self._record.stem}*")
            raise DataError(
                f"{error}. Damaged training images: {len(known)}, listed in "
                f"{pattern if several else self._record}, but "
                f"data.max_damaged is {self._limit}; repair or remove them, or set "
                f"data.max_damaged={len(known)} or more"
            ) from error


def damaged_indices(record: Path) -> set[int]:
    """Indices of the damaged images that the records of all processes list.

    Args:
        record: that of the main process.

    Raises:
        DataError: a record itself is damaged.
    """
    return {_index(line) for one in _all_records(record) for line in _lines(one)}


def _all_records(record: Path) -> list[Path]:
    """The records of a stage; that of the main process may not exist."""
    return [*sorted(record.parent.glob(f"{record.stem}-rank*{record.suffix}")), record]


def _lines(record: Path) -> list[str]:
    """The lines of a record, each with an index."""
    try:
        lines = read_text(record).splitlines()
        for line in lines:
            _index(line)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise DataError(
            f"{record} is damaged: {error}; remove it, and it is written again"
        ) from error
    return lines


def _warn(reason: str) -> None:
    logger.warning("%s; using the next image instead", reason)


def _index(line: str) -> int:
    return int(line.partition("\t")[0])
