"""Images in parquet files, as Hugging Face's datasets stores them, read at any index.

A row group is read as a whole, so the last one is kept: images in order are read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pae_datasets.config import ParquetConfig
from pae_datasets.index_cache import Array, IndexCache
from pae_datasets.sharded import ShardedImages
from pae_framework.errors import DataError

_VERSION = "1"
LAST_LABEL = (1 << 31) - 1


@dataclass(frozen=True)
class ParquetIndex:
    """The rows of one file in order; all arrays are (M,)."""

    groups: Array
    """Row group of each row, int64."""
    rows: Array
    """Number of the row in its group, int64."""
    labels: Array
    """int64, at least 0."""


class Parquet(ShardedImages):
    """Images of parquet files; see :class:`ShardedImages`."""

    config: ParquetConfig

    def index(self, paths: Sequence[Path]) -> Sequence[ParquetIndex]:
        """Row groups and labels of each file."""
        self._kept: tuple[tuple[int, int], Any] | None = None
        image, label = self.config.image, self.config.label
        cache = IndexCache(
            ParquetIndex,
            "parquet_index",
            _VERSION,
            f"{image!r} {label!r}",
            lambda path: _scan(path, image, label),
        )
        self._indices = cache.of(paths)
        return self._indices

    def content(self, shard: int, row: int) -> tuple[str, bytes]:
        """Name and bytes of an image."""
        index, path = self._indices[shard], self._paths[shard]
        name, number = f"{path}/{row}", int(index.rows[row])
        images = self._images(shard, int(index.groups[row]))
        value = images[number].as_py() if number < len(images) else None
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:
            raise DataError(
                f"{name}: no bytes in column {self.config.image}; images beside the file, named by "
                "their path, are not read"
            )
        return name, content

    def _images(self, shard: int, group: int) -> Any:
        """The column of a row group: bytes, or structs of bytes."""
        if self._kept is None or self._kept[0] != (shard, group):
            path = self._paths[shard]
            with _opened(path) as file:
                if group >= file.num_row_groups:
                    raise DataError(f"{path}: has changed: it has no row group {group}")
                column = _bytes_column(file, path, self.config.image)
                table = file.read_row_group(group, columns=[column], use_threads=False)
            self._kept = (shard, group), table.column(0)
        return self._kept[1]


def _scan(path: Path, image: str, label: str) -> ParquetIndex:
    with _opened(path) as file:
        _bytes_column(file, path, image)
        labels = _labels(file, path, label)
        sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.concatenate([np.arange(0), *(np.arange(size) for size in sizes)])
    return ParquetIndex(groups, rows, labels)


def _labels(file: Any, path: Path, name: str) -> Array:
    from pyarrow import types

    kind = _column(file, path, name).type
    if not types.is_integer(kind):
        raise DataError(f"{path}: column {name} holds {kind}; expected numbers of classes")
    column = file.read(columns=[name], use_threads=False).column(name)
    if column.null_count:
        row = column.is_null().index(True).as_py()
        raise DataError(f"{path}/{row}: no label in column {name}")
    labels = column.to_numpy()
    wrong = np.flatnonzero((labels < 0) | (labels > LAST_LABEL))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(f"{path}/{row}: not the number of a class in {name}: {int(labels[row])}")
    return labels.astype(np.int64)


def _bytes_column(file: Any, path: Path, name: str) -> str:
    """Path of the column with the bytes of images: itself, or the field ``bytes`` of a struct."""
    from pyarrow import types

    kind = _column(file, path, name).type
    if types.is_struct(kind) and (field := kind.get_field_index("bytes")) >= 0:
        inner, column = kind.field(field).type, f"{name}.bytes"
    else:
        inner, column = kind, name
    if not (types.is_binary(inner) or types.is_large_binary(inner)):
        raise DataError(
            f"{path}: column {name} holds {kind}; expected bytes of image files, or structs of "
            "`bytes` and `path`"
        )
    return column


def _column(file: Any, path: Path, name: str) -> Any:
    """The field of the schema with that name."""
    schema = file.schema_arrow
    if len(schema.get_all_field_indices(name)) != 1:
        found = ", ".join(schema.names) or "none"
        raise DataError(f"{path}: has no one column {name}; its columns: {found}")
    return schema.field(name)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, opened anew: worker processes share no position.

    Raises:
        DataError: pyarrow cannot read it; names it.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            yield file
    except (ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as a parquet file: {reason}") from error
