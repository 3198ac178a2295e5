"""Files with the contents of others. No torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path

from pae_framework.system.files import file_digest

_BLOCK = 4096
"""Bytes at the end of a file, which tell most images of one size apart."""

_Files = list[Path]
_Key = Callable[[Path], Hashable]


def copies(files: Iterable[Path], others: Iterable[Path]) -> dict[Path, Path]:
    """Files with the contents of one of ``others``, and the first such one.

    Few files are read as a whole: those with the size and the last bytes of another one. Empty
    files and those that cannot be read are left out; ``others`` may contain ``files``.
    """
    groups: list[tuple[_Files, _Files]] = [(list(files), list(others))]
    for key in (_size, _last_block, file_digest):
        groups = [part for group in groups for part in _split(*group, key)]
    return {file: same[0] for found, same in groups for file in found if file != same[0]}


def _split(files: _Files, others: _Files, key: _Key) -> Iterator[tuple[_Files, _Files]]:
    """Files and others with equal keys, except for a file that is alone with itself."""
    known = _by_key(files, key)
    same = known if files == others else _by_key(others, key)
    for value, found in known.items():
        if value in same and (len(found) > 1 or same[value] != found):
            yield found, same[value]


def _by_key(files: _Files, key: _Key) -> dict[Hashable, _Files]:
    found: dict[Hashable, _Files] = {}
    for file in files:
        try:
            found.setdefault(key(file), []).append(file)
        except OSError:
            continue
    found.pop(None, None)
    return found


def _size(file: Path) -> int | None:
    return os.stat(file).st_size or None  # noqa: PTH116 - faster


def _last_block(file: Path) -> bytes:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        start = max(0, os.fstat(descriptor).st_size - _BLOCK)
        return os.pread(descriptor, _BLOCK, start)
    finally:
        os.close(descriptor)
