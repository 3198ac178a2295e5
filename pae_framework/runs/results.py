"""The files that a finished stage left: their sizes and digests, and checks against them. No torch.

A stage's record lists every file in its folder except logs, checkpoints, records, hidden files,
and the list of damaged images. Whatever reads a finished stage reads through
:class:`StageResults`, so no result is used that has changed since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pae_framework.data.data_settings import SHARDS
from pae_framework.errors import RunError
from pae_framework.system.files import file_digest

_OTHER_FILES = {"stage.json", "data.json", "metrics.jsonl", "damaged.txt"}
_OTHER_FOLDERS = {"checkpoints", "tensorboard"}
ADOPTED = "of an earlier version: recorded sizes and digests of its files"
"""What is printed when the results of such a stage were recorded."""


class ResultFile(BaseModel):
    """Size in bytes, XXH3 digest, and time of the last change in ns of a recorded file."""

    size: int
    xxh3: str
    mtime_ns: int


Results = dict[str, dict[str, Any]]
"""Path relative to the stage's folder -> :class:`ResultFile`, in JSON types."""


def describe_results(folder: Path) -> Results:
    """Size, digest and time of every result in a stage's folder."""
    return describe_files(folder, sorted(_result_names(folder)))


def describe_files(folder: Path, names: Iterable[str]) -> Results:
    """Size, digest and time of some files of a folder."""
    results = {}
    for name in names:
        facts = (folder / name).stat()
        results[name] = ResultFile(
            size=facts.st_size, xxh3=file_digest(folder / name), mtime_ns=facts.st_mtime_ns
        ).model_dump()
    return results


def _result_names(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        other = name.parts[0] in _OTHER_FILES or name.parts[0] in _OTHER_FOLDERS
        unfinished = any(part.startswith(".") or part.endswith(".parts") for part in name.parts)
        if path.is_file() and not other and not unfinished and path.suffix != ".log":
            yield name.as_posix()


@dataclass(frozen=True)
class StageResults:
    """The files of one finished stage.

    Args:
        folder: the stage's folder.
        recorded: what its record lists; None if an earlier version finished the stage.
        remedy: what to do if a file is missing or has changed, for messages.
    """

    folder: Path
    recorded: Mapping[str, Any] | None
    remedy: str

    def has(self, name: str) -> bool:
        """Whether the stage wrote the file ``name``."""
        return (self.folder / name).is_file() if self.recorded is None else name in self.recorded

    def names(self) -> list[str]:
        """The files that the stage wrote, sorted."""
        return sorted(_result_names(self.folder) if self.recorded is None else self.recorded)

    def file(self, name: str) -> Path:
        """A file of the stage, after its size and contents were checked.

        Contents are read once per process, unless the file changes.

        Raises:
            RunError: the file is missing or has changed.
        """
        path = self._existing(name)
        if self.recorded is not None:
            self._require_digest(path, self.recorded[name])
        return path

    def files(self) -> Path:
        """The folder, after all its files were checked as in :meth:`file`.

        Raises:
            RunError: a file is missing or has changed, or there is a shard of latents too many.
        """
        self._require_no_other_shard()
        for name in self.recorded or ():
            self.file(name)
        return self.folder

    def require_complete(self) -> Results:
        """Check that all files are there and none changed, without reading more than necessary.

        Only files that were touched since they were recorded are read.

        Returns:
            What is recorded, with the present times of the files.

        Raises:
            RunError: as :meth:`files`.
        """
        self._require_no_other_shard()
        found: Results = {}
        for name, facts in (self.recorded or {}).items():
            path = self._existing(name)
            time = path.stat().st_mtime_ns
            if time != facts["mtime_ns"]:
                self._require_digest(path, facts)
            found[name] = {**facts, "mtime_ns": time}
        return found

    def _existing(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise self.error(path, "is missing")
        if self.recorded is None:
            return path
        if name not in self.recorded:
            raise self.error(path, "is not a file that the finished stage wrote")
        size, expected = path.stat().st_size, self.recorded[name]["size"]
        if size != expected:
            raise self.error(path, f"has {size} bytes, but {expected} were written")
        return path

    def _require_digest(self, path: Path, facts: Mapping[str, Any]) -> None:
        if (digest := _cached_digest(path)) != facts["xxh3"]:
            fact = f"has other contents than were written (XXH3 {digest}, not {facts['xxh3']})"
            raise self.error(path, fact)

    def _require_no_other_shard(self) -> None:
        if self.recorded is None:
            return
        for path in sorted(self.folder.glob(SHARDS)):
            if path.name not in self.recorded:
                raise self.error(path, "was not written by the stage")

    def error(self, path: Path, fact: str) -> RunError:
        """The error that a file is not as the stage left it, with the remedy."""
        return RunError(f"{path} {fact}; {self.remedy}")


_digests: dict[tuple[str, int, int, int], str] = {}
"""Digests known to this process, by path, inode, size and time of the last change."""


def _cached_digest(path: Path) -> str:
    facts = path.stat()
    key = (str(path), facts.st_ino, facts.st_size, facts.st_mtime_ns)
    if key not in _digests:
        _digests[key] = file_digest(path)
    return _digests[key]
