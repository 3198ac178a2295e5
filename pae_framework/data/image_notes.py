"""What readers note about image files besides their pixels: logged once, then counted. No torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pae_framework.system.printing import printable

logger = logging.getLogger(__name__)

Note = Callable[[str, Path | str], None]
"""Takes a note and the file that it is about."""

MOST = 10_000
"""Files that are counted per note."""


class ImageNotes:
    """Notes about image files. The first file of a note is logged at once, the others are counted.

    A process that reads for another one only collects them (:meth:`relay`, :meth:`take`), and the
    other one adds them to its own (:meth:`update`).
    """

    def __init__(self) -> None:
        self._files: dict[str, dict[str, None]] = {}  # in the order in which they were read
        self._logged: dict[str, int] = {}
        self._relays = False

    def add(self, note: str, path: Path | str) -> None:
        """Note something about a file."""
        files = self._files.setdefault(note, {})
        if len(files) < MOST:
            files[str(path)] = None
        if not self._relays and note not in self._logged:
            self._log(note)

    def relay(self) -> None:
        """From now on only collect notes, for another process."""
        self._files.clear()
        self._relays = True

    def take(self) -> dict[str, list[str]]:
        """The files of each note since the last call."""
        taken = {note: list(files) for note, files in self._files.items()}
        self._files.clear()
        return taken

    def update(self, notes: Mapping[str, Iterable[str]]) -> None:
        """Add what another process has taken."""
        for note, paths in notes.items():
            for path in paths:
                self.add(note, path)

    def summarize(self) -> None:
        """Log the count of each note that has more files than when it was last logged."""
        for note, files in self._files.items():
            if not self._relays and len(files) > self._logged.get(note, 0):
                self._log(note)

    def _log(self, note: str) -> None:
        files = self._files[note]
        first, others = next(iter(files)), len(files) - 1
        more = "or more " if len(files) == MOST else ""
        count = f" and {others:,} {more}other images" if others > 1 else ""
        count = " and 1 other image" if others == 1 else count
        self._logged[note] = len(files)
        logger.warning("%s%s: %s", printable(first), count, printable(note))


NOTES = ImageNotes()
"""The notes of this process."""
