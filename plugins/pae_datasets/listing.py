"""Which files of a folder are images, and of which class. Reads no file. No torch."""

from __future__ import annotations

import fnmatch
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from pathlib import Path

from xxhash import xxh3_64_intdigest

from pae_framework.data.classes import some_names
from pae_framework.data.image_names import IMAGE_SUFFIXES

FLAT = "images"
"""Name of the only class of a folder without class folders."""
HIDDEN = "hidden"
BESIDE = "beside the class folders"
BROKEN = "broken links"
ABOVE = "links to a folder above them"
SPECIAL = "pipes, sockets and devices"
OTHER = "other types"
EXCLUDED = "excluded"
RUNS = "directories of runs"
_RUN_FILES = ("run.json", "stage.json")
"""Files by which a directory of a run and one of its stages are known."""
_SHOWN_SUFFIXES = 5
_TICK_NS = 2_000_000_000
"""File systems may give two changes within this time the same time stamp."""
_NEVER = -1
_FIRST_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True)
class Part:
    """A part of the images of one folder, chosen by the hash of their names.

    An image stays in its part when other images are added or removed, and in the test part when
    the share grows.
    """

    test_share: float
    """Share of the images in the test part."""
    is_test: bool

    def has(self, name: str) -> bool:
        """Whether an image is in this part, by its name relative to the folder."""
        return (xxh3_64_intdigest(os.fsencode(name)) < self.test_share * 2**64) == self.is_test


@dataclass(frozen=True)
class Listing:
    """The images of a folder: those below its class folders, or, without any, those in it.

    Names are relative to that folder, with ``/``; hidden files and folders and directories of runs
    are left out, at every depth, and links are followed.
    """

    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of each class's images, sorted by their parts; classes are sorted by name."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Numbers of files, folders and links that are not read, by reason."""
    suffixes: Counter[str] = field(default_factory=Counter)
    """Numbers of files left out for their suffix, by suffix."""
    problem: str | None = None
    """Why the folder cannot be used; None if it can."""
    folders: dict[str, int] = field(default_factory=dict)
    """Folders that were listed, with the time of their last change in ns."""

    def names(self) -> Iterator[str]:
        """Names of all images, in order."""
        return chain.from_iterable(self.classes.values())

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(map(len, self.classes.values()))

    @property
    def summary(self) -> str:
        """What was left out, in words; empty if nothing was."""
        return "; ".join(self._in_words(reason) for reason in sorted(self.left_out))

    def _in_words(self, reason: str) -> str:
        text = f"{reason}: {self.left_out[reason]}"
        if reason != OTHER:
            return text
        common = self.suffixes.most_common(_SHOWN_SUFFIXES)
        shown = [ascii(suffix)[1:-1] or "no suffix" for suffix, _ in common]
        more = ", ..." if len(self.suffixes) > len(shown) else ""
        return f"{text} ({', '.join(shown)}{more})"


_known: dict[tuple[Path, int | None, Part | None, tuple[str, ...]], Listing] = {}
"""The last listing of each folder in this process."""


def list_images(
    root: Path,
    expected: int | None = None,
    part: Part | None = None,
    exclude: tuple[str, ...] = (),
) -> Listing:
    """List the images of a folder of class folders, or of a folder without folders.

    A folder is listed again if it, or a folder below it, has changed since the last call.

    Args:
        root: folder of the class folders.
        expected: number of class folders; None: any number.
        part: the images to keep; None: all.
        exclude: patterns of names of images to leave out.
    """
    key = root.absolute(), expected, part, exclude
    known = _known.get(key)
    if known is None or not _is_current(known):
        known = _list(root, expected)
        if exclude and known.problem is None:
            known = _without(known, exclude, root)
        if part is not None and known.problem is None:
            known = _of_part(known, part, root)
        _known[key] = known
    return known


def _without(listing: Listing, exclude: tuple[str, ...], root: Path) -> Listing:
    excluded = re.compile("|".join(map(fnmatch.translate, exclude)))
    classes = {
        class_name: tuple(name for name in names if not excluded.match(name))
        for class_name, names in listing.classes.items()
    }
    kept = replace(listing, classes=classes)
    if empty := [name for name, names in classes.items() if not names]:
        return Listing(problem=f"`exclude` leaves no image of {some_names(empty)} in {root}")
    if excluded_images := listing.images - kept.images:
        kept.left_out[EXCLUDED] += excluded_images
    return kept


def _of_part(listing: Listing, part: Part, root: Path) -> Listing:
    classes = {
        class_name: tuple(filter(part.has, names)) for class_name, names in listing.classes.items()
    }
    empty = [name for name, names in classes.items() if not names]
    if part.is_test and len(empty) == len(classes):
        problem = (
            f"`holdout` {part.test_share:g} leaves no test image in {root} (images: "
            f"{listing.images}); raise it, or add images"
        )
        return Listing(problem=problem)
    if not part.is_test and empty:
        problem = (
            f"`holdout` {part.test_share:g} leaves no training image of the class "
            f"{some_names(empty)} in {root}; lower it, or add images"
        )
        return Listing(problem=problem)
    return replace(listing, classes=classes)


def _is_current(listing: Listing) -> bool:
    try:
        return bool(listing.folders) and all(
            os.stat(folder).st_mtime_ns == changed  # noqa: PTH116 - for many folders
            for folder, changed in listing.folders.items()
        )
    except OSError:
        return False


def _list(root: Path, expected: int | None) -> Listing:
    if not root.is_dir():
        return Listing(
            problem=f"no such folder: {root} (expected images, or one folder of images per class)"
        )
    listing = Listing()
    try:
        folders, beside = _split_by_kind(root, listing)
        if problem := _problem_of_folders(root, folders):
            return Listing(problem=problem)
        for name in folders:
            runs = listing.left_out[RUNS]
            images = tuple(sorted(_images_below(root, name, listing), key=_parts))
            if images or listing.left_out[RUNS] == runs:
                listing.classes[name] = images
    except OSError as error:
        return Listing(problem=f"{error.filename or root} cannot be listed: {error.strerror}")
    if beside and listing.classes:
        listing.left_out[BESIDE] = len(beside)
    elif beside:
        listing.classes[FLAT] = tuple(beside)
    if problem := _problem_of_number(root, len(listing.classes), expected):
        return Listing(problem=problem)
    if empty := [name for name, files in listing.classes.items() if not files]:
        return Listing(problem=_problem_of_empty(root, empty))
    return listing


def _parts(name: str) -> list[str]:
    return name.split("/")


def _split_by_kind(root: Path, listing: Listing) -> tuple[list[str], list[str]]:
    """Sorted names of the folders and of the images in a folder; counts what is left out."""
    folders: list[str] = []
    images: list[str] = []
    with _scan(str(root), listing) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                listing.left_out[HIDDEN] += 1
            elif _is_folder(entry):
                if not _is_run(entry, listing):
                    folders.append(entry.name)
            elif _is_image(entry, listing):
                images.append(entry.name)
    return sorted(folders), sorted(images)


def _problem_of_number(root: Path, count: int, expected: int | None) -> str | None:
    if not count:
        return (
            f"{root} contains no image and no class folder (expected {root}/<class>/<image>.jpg, "
            f"or {root}/<image>.jpg)"
        )
    if expected not in (None, count):
        return f"{root} contains {count} classes, but `classes` is {expected}"
    return None


def _problem_of_folders(root: Path, folders: Sequence[str]) -> str | None:
    for name in folders:
        if not _is_text(name):
            return f"{root} contains a class folder whose name is not UTF-8: {name!r}; rename it"
    real = {name: os.path.realpath(root / name) for name in folders}
    above = os.path.realpath(root)
    for name, path in real.items():
        if _contains(path, above):
            return f"class folder {root / name} is a link to {path}, which contains it; remove it"
    # Sorted by parts, a folder comes directly before the folders inside it.
    in_order = sorted(folders, key=lambda name: _parts(real[name]))
    for name, other in pairwise(in_order):
        if _contains(real[name], real[other]):
            return (
                f"class folders {root / name} and {root / other} hold the same images: "
                f"{real[other]}; remove one of them"
            )
    return None


def _problem_of_empty(root: Path, empty: Sequence[str]) -> str:
    more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
    return (
        f"class folder {root / empty[0]}{more} contains no image of a format that Pillow reads "
        "(hidden files do not count); fill it or remove it"
    )


def _images_below(root: Path, class_name: str, listing: Listing) -> Iterator[str]:
    """Names of the images below a class folder, in any order; counts what is left out."""
    left_out = listing.left_out
    start = os.path.realpath(root / class_name)
    waiting: list[tuple[str, str, tuple[str, ...]]] = [
        (class_name, start, (os.path.realpath(root), start))
    ]
    while waiting:
        folder, real, above = waiting.pop()
        with _scan(f"{root}/{folder}", listing) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}"
                if entry.name.startswith("."):
                    left_out[HIDDEN] += 1
                elif _is_folder(entry):
                    if _is_run(entry, listing):
                        continue
                    if not entry.is_symlink():
                        waiting.append((name, os.path.join(real, entry.name), above))  # noqa: PTH118
                        continue
                    target = os.path.realpath(entry.path)
                    if any(_contains(target, path) for path in (*above, real)):
                        left_out[ABOVE] += 1
                    else:
                        waiting.append((name, target, (*above, real)))
                elif _is_image(entry, listing):
                    yield name


@contextmanager
def _scan(folder: str, listing: Listing) -> Iterator[Iterator[os.DirEntry[str]]]:
    """The entries of a folder, whose time of change is noted unless it may still change unseen."""
    changed = os.stat(folder).st_mtime_ns  # noqa: PTH116
    recent = time.time_ns() - changed < _TICK_NS
    listing.folders[folder] = _NEVER if recent else changed
    with os.scandir(folder) as entries:
        yield entries


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_run(entry: os.DirEntry[str], listing: Listing) -> bool:
    """Whether a folder is that of a run or of a stage; counts it if so."""
    found = any(os.path.exists(f"{entry.path}/{name}") for name in _RUN_FILES)  # noqa: PTH110
    if found:
        listing.left_out[RUNS] += 1
    return found


def _is_image(entry: os.DirEntry[str], listing: Listing) -> bool:
    """Whether a file is read as an image; counts it if not."""
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - a Path per file is slow
    if suffix not in IMAGE_SUFFIXES:
        listing.suffixes[suffix] += 1
        listing.left_out[OTHER] += 1
        return False
    try:
        if entry.is_file():
            return True
        special = Path(entry.path).exists()
    except OSError:  # a link to itself
        special = False
    listing.left_out[SPECIAL if special else BROKEN] += 1
    return False


def _contains(folder: str, path: str) -> bool:
    """Whether the real path ``path`` is ``folder`` or inside it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_by_first_version(root: Path, classes: Iterable[str]) -> Iterator[str]:
    """Names of the images that version 0.1.0 read of some classes."""
    for class_name in classes:
        for folder, _, names in os.walk(root / class_name):
            for name in names:
                if name.lower().endswith(_FIRST_SUFFIXES) and not name.startswith("."):
                    yield Path(folder, name).relative_to(root).as_posix()
