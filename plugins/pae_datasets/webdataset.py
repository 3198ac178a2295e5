"""Images in tar files, as WebDataset writes them, read at any index."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pae_datasets.config import WebDatasetConfig
from pae_datasets.sharded import ShardedImages
from pae_datasets.tar_index import ShardIndex, index_shards
from pae_framework.errors import DataError


class WebDataset(ShardedImages):
    """Images of tar shards; see :class:`ShardedImages`."""

    config: WebDatasetConfig

    def index(self, paths: Sequence[Path]) -> Sequence[ShardIndex]:
        """Where the images are in each shard."""
        self._shards = index_shards(paths, self.config.image, self.config.label)
        return self._shards

    def content(self, shard: int, row: int) -> tuple[str, bytes]:
        """Name and bytes of an image."""
        index, path = self._shards[shard], self._paths[shard]
        name = f"{path}/{os.fsdecode(bytes(index.keys[row]))}"
        return name, _read(path, name, int(index.offsets[row]), int(index.sizes[row]))


def _read(path: Path, name: str, offset: int, size: int) -> bytes:
    """Bytes of a shard. It is opened for each image: worker processes share no position."""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            content = file.read(size) or b""
            while len(content) < size and (more := file.read(size - len(content))):
                content += more
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error
    if len(content) < size:
        raise DataError(f"{name}: {path.name} has changed: it ends before this image does")
    return content
