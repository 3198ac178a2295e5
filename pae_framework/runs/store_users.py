"""Notes in a folder of stages about the runs elsewhere that use it. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pae_framework.errors import WriteError
from pae_framework.runs.reading import read_text
from pae_framework.system.files import digest_of_text, write_text

_NOTES = ".users"
_REMEDY = "remove this file; the next `pae run` of the run that uses the stages writes it again"


def note_user(store: Path, run: Path) -> None:
    """Leave the path of a run in the store that it uses, unless it is inside the store's folder.

    A store that cannot be written gets no note.
    """
    path = run.resolve()
    note = store / _NOTES / digest_of_text(str(path))
    if not path.is_relative_to(store.resolve().parent) and not note.is_file():
        with suppress(WriteError):
            write_text(note, str(path))


def noted_users(store: Path) -> Iterator[Path]:
    """The runs that left a note in a store; they may have been moved or removed since.

    Raises:
        RunError: a note cannot be read.
    """
    yield from (Path(read_text(note, _REMEDY)) for note in sorted((store / _NOTES).glob("[!.]*")))
