"""What files hold and where, kept in the user's cache while their size, time and inode stay.

Files are scanned once. No torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from xxhash import xxh3_128

from pae_framework.errors import DataError, WriteError
from pae_framework.system.files import file_problem, replacing
from pae_framework.system.user_cache import user_cache

_THREADS = 8

Array = np.ndarray[Any, np.dtype[Any]]
T = TypeVar("T")


class IndexCache(Generic[T]):
    """The indices of files of one kind.

    Args:
        kind: a dataclass of arrays (M,).
        folder: its folder in the user's cache.
        version: of what scanning gives.
        settings: what it depends on besides the file.
        scan: makes the index of a file; raises DataError or OSError.
    """

    def __init__(
        self, kind: type[T], folder: str, version: str, settings: str, scan: Callable[[Path], T]
    ):
        self._kind, self._folder, self._scan = kind, folder, scan
        self._version, self._settings = version, settings

    def of(self, paths: Sequence[Path]) -> list[T]:
        """The index of each file.

        Raises:
            DataError: a file cannot be read; names it.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(self._index, paths))

    def _index(self, path: Path) -> T:
        if problem := file_problem(path):
            raise DataError(problem)
        try:
            found = path.stat()
            same = f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"
            facts = f"{self._version} {same} {self._settings}"
            cache = self._file(path)
            known = None if cache is None else self._read(cache, facts)
            if known is None:
                known = self._scan(path)
                if cache is not None:
                    _write(cache, facts, known)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        return known

    def _file(self, path: Path) -> Path | None:
        """Named by the file; None for a user without a home."""
        name = xxh3_128(os.fsencode(path.absolute())).hexdigest()
        cache = user_cache()
        return None if cache is None else cache / self._folder / f"{name}.npz"

    def _read(self, cache: Path, facts: str) -> T | None:
        """The index in a file of the cache; None if there is none, or one of another file."""
        names: dict[str, Any] = self._kind.__dataclass_fields__  # type: ignore[attr-defined]
        try:
            with cache.open("rb") as file, np.load(file, allow_pickle=False) as content:
                if str(content["facts"]) != facts:
                    return None
                columns = {name: content[name] for name in names}
        except Exception:  # a damaged file raises errors of many types
            return None
        same = len({column.shape for column in columns.values()}) == 1
        return self._kind(**columns) if same else None


def _write(cache: Path, facts: str, index: object) -> None:
    with suppress(WriteError), replacing(cache) as unfinished, unfinished.open("wb") as file:
        np.savez(file, facts=np.array(facts), **vars(index))
