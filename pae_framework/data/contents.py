"""Identify the files of a data set by their contents. No torch.

Contents are read once. Afterwards a file counts as unchanged while its size, times and inode are
the same; else its contents are compared.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from xxhash import xxh3_128

from pae_framework.errors import DataError, WriteError
from pae_framework.system.files import replacing

logger = logging.getLogger(__name__)

MANY = 20_000
"""Number of files whose first reading is announced."""
READ_WHOLE = 1 << 26
"""Bytes of a file that are read. Of a larger file, evenly spaced blocks of this many bytes."""
_BLOCKS = 64
_THREADS = 8
_AT_ONCE = 256
"""Files that a thread reads before it gets others."""
_SHOWN = 3


class FileFacts(NamedTuple):
    """What is known of one file."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    digest: str


@dataclass(frozen=True)
class Changes:
    """Names of the files in which one version of a data set differs from an earlier one."""

    deleted: Sequence[str]
    replaced: Sequence[str]
    added: Sequence[str]

    def __str__(self) -> str:
        kinds = ("deleted", self.deleted), ("replaced", self.replaced), ("added", self.added)
        return "; ".join(f"{kind}: {_some(names)}" for kind, names in kinds if names)


def _some(names: Sequence[str]) -> str:
    shown = (name if name.isprintable() else ascii(name)[1:-1] for name in names[:_SHOWN])
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


@dataclass(frozen=True)
class Contents:
    """The files of a data set by name."""

    files: Mapping[str, FileFacts]

    @cached_property
    def identity(self) -> str:
        """A hash of the names and contents of all files."""
        digest = xxh3_128()
        for name, facts in sorted(self.files.items()):
            digest.update(os.fsencode(f"{name}\0{facts.size}\0{facts.digest}\0"))
        return digest.hexdigest()

    def changes_since(self, earlier: Contents) -> Changes:
        """The files that differ from those of ``earlier``."""
        now, before = self.files, earlier.files
        common = sorted(now.keys() & before.keys())
        return Changes(
            sorted(before.keys() - now.keys()),
            [name for name in common if _content(now[name]) != _content(before[name])],
            sorted(now.keys() - before.keys()),
        )

    def write(self, path: Path) -> None:
        """Write them to a file, for :func:`recorded_contents`."""
        text = json.dumps(dict(self.files), separators=(",", ":"))
        with replacing(path) as temporary:
            temporary.write_bytes(gzip.compress(text.encode(), compresslevel=1, mtime=0))


def _content(facts: FileFacts) -> tuple[int, str]:
    return facts.size, facts.digest


def recorded_contents(path: Path) -> Contents | None:
    """Contents from a file that :meth:`Contents.write` wrote; None if it is missing or damaged."""
    if not path.is_file():
        return None
    try:
        listed = json.loads(gzip.decompress(path.read_bytes()))
        files = {name: FileFacts(*facts) for name, facts in listed.items()}
    except (OSError, EOFError, ValueError, TypeError, AttributeError, zlib.error):
        return None
    return Contents(files)


def read_contents(files: Mapping[str, Path], known: Contents | None = None) -> Contents:
    """Identify files; those that are as in ``known`` are not read.

    Raises:
        DataError: a file cannot be read; names it.
    """
    before = {} if known is None else known.files

    names = list(files)
    if (unknown := len(files.keys() - before.keys())) >= MANY:
        logger.warning("reading %s files to identify their contents; only once", f"{unknown:,}")

    def facts(start: int) -> list[FileFacts]:
        some = names[start : start + _AT_ONCE]
        return [_facts(files[name], before.get(name)) for name in some]

    with ThreadPoolExecutor(_THREADS) as pool:
        found = chain.from_iterable(pool.map(facts, range(0, len(names), _AT_ONCE)))
        return Contents(dict(zip(files, found, strict=True)))


def cached_contents(files: Mapping[str, Path]) -> Contents:
    """Identify files with the help of the user's cache, which is updated.

    Raises:
        DataError: a file cannot be read; names it.
    """
    cache = _cache_file(files.values())
    known = None if cache is None else recorded_contents(cache)
    contents = read_contents(files, known)
    if cache is not None and (known is None or known.files != contents.files):
        with suppress(WriteError):  # it only saves time
            contents.write(cache)
    return contents


def _cache_file(paths: Iterable[Path]) -> Path | None:
    """The cache of a set of files, named by their common folder; None for a user without a home."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:
        return None
    folder = os.path.commonpath([path.absolute() for path in paths])
    return home / "pae_framework" / "contents" / f"{xxh3_128(os.fsencode(folder)).hexdigest()}.gz"


def _facts(path: Path, known: FileFacts | None) -> FileFacts:
    try:
        found = path.stat()
        stat = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        digest = (
            known.digest if known is not None and known[:-1] == stat else _digest(path, stat[0])
        )
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return FileFacts(*stat, digest)


def _digest(path: Path, size: int) -> str:
    digest = xxh3_128()
    with path.open("rb") as file:
        if size <= READ_WHOLE:
            digest.update(file.read())
        else:
            block = READ_WHOLE // _BLOCKS
            for number in range(_BLOCKS):
                file.seek((size - block) * number // (_BLOCKS - 1))
                digest.update(file.read(block))
    return digest.hexdigest()
