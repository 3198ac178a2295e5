"""Identify the files of a data set by their contents. No torch.

Contents are read once. Afterwards a file counts as unchanged while its size, times and inode are
the same; else its contents are compared.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

from xxhash import xxh3_128

from pae_framework.errors import DataError, WriteError
from pae_framework.system.files import file_digest, replacing
from pae_framework.system.user_cache import user_cache

logger = logging.getLogger(__name__)

MANY = 20_000
"""Number of files whose first reading is announced."""
FEW = 200
"""Number of changed files that a command reads although it only shows something."""
_THREADS = 8
_AT_ONCE = 256
"""Files that a thread reads before it gets others."""
_SHOWN = 3


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

    files: Mapping[str, str]
    """``size mtime_ns ctime_ns inode digest`` of each; text, because there may be millions."""

    @cached_property
    def identity(self) -> str:
        """A hash of the names and contents of all files."""
        digest = xxh3_128()
        for name, facts in sorted(self.files.items()):
            size, content = _content(facts)
            digest.update(os.fsencode(f"{name}\0{size}\0{content}\0"))
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
        """Write them to a file, for :func:`recorded_contents`.

        The first line is the digest of the rest, which has one line per file: its facts and name.
        """
        lines = (f"{facts}\t{_escaped(name)}\n" for name, facts in self.files.items())
        body = os.fsencode("".join(lines))
        with replacing(path) as temporary:
            temporary.write_bytes(xxh3_128(body).hexdigest().encode() + b"\n" + body)


def _content(facts: str) -> tuple[str, str]:
    """Size and digest."""
    return facts.partition(" ")[0], facts.rpartition(" ")[2]


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace("\n", "\\n")


def _unescaped(text: str) -> str:
    return "\\".join(part.replace("\\n", "\n") for part in text.split("\\\\"))


def recorded_contents(path: Path) -> Contents | None:
    """Contents from a file that :meth:`Contents.write` wrote; None if it is missing or damaged."""
    if (body := _recorded(path)) is None:
        return None
    files = {}
    for line in os.fsdecode(body).split("\n")[:-1]:
        facts, _, name = line.partition("\t")
        files[_unescaped(name) if "\\" in name else name] = facts
    return Contents(files)


def is_recorded(path: Path) -> bool:
    """Whether a file that :meth:`Contents.write` wrote is there and undamaged."""
    return _recorded(path) is not None


def _recorded(path: Path) -> bytes | None:
    if not path.is_file():
        return None
    try:
        digest, _, body = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    return body if digest == xxh3_128(body).hexdigest().encode() else None


def read_contents(files: Mapping[str, Path], known: Contents | None = None) -> Contents:
    """Identify files; those that are as in ``known`` are not read.

    Raises:
        DataError: a file cannot be read; names it.
    """
    before = {} if known is None else known.files
    names = list(files)
    if (unknown := len(files.keys() - before.keys())) >= MANY:
        logger.warning("reading %s files to identify their contents; only once", f"{unknown:,}")

    def facts(start: int) -> list[str]:
        some = names[start : start + _AT_ONCE]
        return [_facts(files[name], before.get(name)) for name in some]

    with ThreadPoolExecutor(_THREADS) as pool:
        found = chain.from_iterable(pool.map(facts, range(0, len(names), _AT_ONCE)))
        now = dict(zip(files, found, strict=True))
    return known if known is not None and now == before else Contents(now)


def _facts(path: Path, known: str | None) -> str:
    try:
        stat = _stat(path)
        if known is not None and known.rpartition(" ")[0] == stat:
            return known
        return f"{stat} {file_digest(path)}"
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _is_as_known(path: Path, known: str | None) -> bool:
    return known is not None and known.rpartition(" ")[0] == _stat(path)


def _stat(path: Path) -> str:
    found = os.stat(path)  # noqa: PTH116 - for many files
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


# --- the user's cache -----------------------------------------------------------------------------


def cached_contents(files: Mapping[str, Path]) -> Contents:
    """Identify files with the help of the user's cache, which is updated.

    Raises:
        DataError: a file cannot be read; names it.
    """
    cache = _Cache(files)
    known = cache.known()
    contents = read_contents(files, known)
    if contents is not known:
        cache.update(contents)
    return contents


def mostly_cached_contents(files: Mapping[str, Path]) -> Contents | None:
    """The contents of files of which all but a few are as in the user's cache; else None.

    Reads only those few, and writes nothing.

    Raises:
        DataError: a file cannot be read; names it.
    """
    known = _Cache(files).known()
    if len(files.keys() - known.files.keys()) > FEW:
        return None
    try:
        changed = (x for x, path in files.items() if not _is_as_known(path, known.files.get(x)))
        few = len(list(islice(changed, FEW + 1))) <= FEW
    except OSError:
        few = True  # reading says which file it is
    return read_contents(files, known) if few else None


def unchanged_contents(files: Mapping[str, Path]) -> Contents | None:
    """The contents of files that are as in the user's cache; None if one is not.

    Reads no file and writes nothing.
    """
    known = _Cache(files).known()
    try:
        current = all(_is_as_known(path, known.files.get(name)) for name, path in files.items())
    except OSError:
        return None
    return known if current else None


class _Cache:
    """What is known of the files below the common folder of some files, by their path in it."""

    def __init__(self, files: Mapping[str, Path]):
        paths = list(map(str, files.values()))
        folder = os.path.commonprefix(paths).rpartition("/")[0]  # noqa: RUF071 - a folder
        start = len(folder) + 1 if folder else 0
        self.paths = {name: path[start:] for name, path in zip(files, paths, strict=True)}
        self.folder = Path(os.path.abspath(folder or "."))  # noqa: PTH100 - without links

    def known(self) -> Contents:
        """What is known of the files, by their names."""
        known = self._recorded()
        return Contents({x: known[path] for x, path in self.paths.items() if path in known})

    def update(self, contents: Contents) -> None:
        """Record the contents, and keep what is known of other files that are still there."""
        others = self._recorded()
        for path in self.paths.values():
            others.pop(path, None)
        others = {path: facts for path, facts in others.items() if (self.folder / path).exists()}
        found = {self.paths[name]: facts for name, facts in contents.files.items()}
        if (file := self._file()) is not None:
            with suppress(WriteError):  # it only saves time
                Contents({**others, **found}).write(file)

    def _recorded(self) -> dict[str, str]:
        file = self._file()
        recorded = None if file is None else recorded_contents(file)
        return {} if recorded is None else dict(recorded.files)

    def _file(self) -> Path | None:
        """Named by the folder; None for a user without a home."""
        name = xxh3_128(os.fsencode(self.folder)).hexdigest()
        cache = user_cache()
        return None if cache is None else cache / "contents" / f"{name}.txt"
