"""Training images that cannot be read: counted, named in a file, replaced, up to a limit."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from pae_framework.contracts import DataSource, Item
from pae_framework.errors import DataError
from pae_framework.files import write_text

logger = logging.getLogger(__name__)

PAUSE = 0.5
"""Seconds until a file is read once more that the machine did not give."""


class SkippingSource(DataSource):
    """A source in whose place of each damaged image stands the next one that can be read.

    Which image that is depends on the files alone, so a training that goes on, or has other loader
    processes, sees the same images. Every damaged image is a line ``index <tab> reason`` of the
    record, which all processes of a stage append to. No image is called damaged that can be read
    at the second try.

    Args:
        source: where images are read.
        record: the file that names damaged images; those it names from earlier that can be read by
            now are taken out.
        limit: how many there may be.
    """

    def __init__(self, source: DataSource, record: Path, limit: int):
        super().__init__(source.config, source.image_size)
        self._source, self._record, self._limit = source, record, limit
        self._drop_repaired()

    @property
    def class_names(self) -> Sequence[str]:
        """The source's."""
        return self._source.class_names

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Item:
        """The image at ``index``, or the first readable one after it.

        Raises:
            DataError: more images are damaged than may be.
        """
        for place in range(index, index + len(self)):
            try:
                return self._read(place % len(self))
            except DataError as error:
                self._note(place % len(self), error)
        raise DataError(f"none of the {len(self)} training images can be read; see {self._record}")

    def mask(self, index: int) -> Tensor | None:
        """The source's mask at ``index``."""
        return self._source.mask(index)

    def _read(self, index: int) -> Item:
        """The image at ``index`` at the first try or the second."""
        try:
            return self._source[index]
        except DataError as error:
            # With a number it is the machine that fails (a disk, too many open files).
            if getattr(error.__cause__, "errno", None) is not None:
                time.sleep(PAUSE)
            return self._source[index]

    def _drop_repaired(self) -> None:
        known = damaged_indices(self._record)
        repaired = {index for index in known if index >= len(self) or self._is_readable(index)}
        if repaired:
            lines = self._record.read_text(encoding="utf-8").splitlines(keepends=True)
            left = [line for line in lines if _index(line) not in repaired]
            write_text(self._record, "".join(left))

    def _is_readable(self, index: int) -> bool:
        try:
            self._read(index)
        except DataError:
            return False
        return True

    def _note(self, index: int, error: DataError) -> None:
        """Name a damaged image, once; stop when it is one too many."""
        known = damaged_indices(self._record)
        if index not in known:
            known.add(index)
            self._record.parent.mkdir(parents=True, exist_ok=True)
            reason = " ".join(str(error).split())
            # One short write in append mode: lines of several processes do not mix.
            with self._record.open("a", encoding="utf-8") as file:
                file.write(f"{index}\t{reason}\n")
            logger.warning("%s; the next image takes its place", reason)
        if len(known) > self._limit:
            raise DataError(
                f"{len(known)} training images are damaged, data.max_damaged allows {self._limit}; "
                f"they are named in {self._record}. Repair them or allow as many, and run again; "
                f"repaired ones no longer count. The last: {error}"
            ) from error


def damaged_indices(record: Path) -> set[int]:
    """Indices of the images a record names."""
    if not record.is_file():
        return set()
    lines = record.read_text(encoding="utf-8").splitlines()
    return {_index(line) for line in lines}


def _index(line: str) -> int:
    return int(line.partition("\t")[0])
