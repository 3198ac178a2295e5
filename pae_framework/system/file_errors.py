"""Errors of the operating system as messages: which file, why, and what to do. No torch."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pae_framework.errors import WriteError

NO_WORKING_FOLDER = "the working directory no longer exists; change to another folder (cd)"


@contextmanager
def writing(path: Path, size: int | None = None) -> Iterator[None]:
    """Name ``path`` in errors of the operating system while it is written in the block.

    Errors that are about a file outside ``path`` and its parent folders pass through, and so do
    errors of the network.

    Args:
        path: the file or folder that the block writes.
        size: bytes to write, for the message if the disk is full; None: unknown.

    Raises:
        WriteError: the block cannot write.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or not _concerns(error, path):
            raise
        raise WriteError(describe_write_error(error, path, size)) from error


_ONLY_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors that only writing can have."""


def gib(count: int) -> str:
    """Bytes with their unit, such as ``1.5 GiB``."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if count >= size:
            value = count / size
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{count / 1024:.0f} KiB"


def existing_folder(path: Path) -> Path:
    """The folder ``path``, or the nearest of its parents that exists."""
    # Path.is_dir() raises an error for a name that is too long or a folder without permission.
    return next((p for p in (path, *path.parents) if os.path.isdir(p)), Path())  # noqa: PTH112


def free_space(path: Path) -> int | None:
    """Bytes that can be written at ``path``, which need not exist; None if unknown."""
    try:
        return shutil.disk_usage(existing_folder(path)).free
    except OSError:
        return None


def require_space(path: Path, size: int) -> None:
    """Check, before anything is written, that ``size`` bytes fit where ``path`` is.

    Raises:
        WriteError: there is less space; says how much is there and how much is needed.
    """
    free = free_space(path)
    if free is not None and free < size:
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise WriteError(describe_write_error(error, path, size))


def describe_write_error(error: OSError, path: Path, size: int | None = None) -> str:
    """What keeps ``path`` from being written and what to do. Arguments as in :func:`writing`."""
    reason = error.strerror or str(error)
    match error.errno:
        case errno.ENOSPC:
            reason = f"the disk is full: {_space(path, size)}; make room, then run it again"
        case errno.EDQUOT:
            reason = f"your disk quota is used up{_needs(size)}; make room, then run it again"
        case errno.EFBIG:
            reason = (
                f"the file is larger than its file system or `ulimit -f` allows{_needs(size)}; "
                "raise the limit or write elsewhere"
            )
        case errno.EROFS:
            reason = f"the file system of {existing_folder(path)} is read-only"
        case errno.EACCES | errno.EPERM:
            reason = f"no permission to write in {existing_folder(path.parent)}"
        case errno.ENAMETOOLONG:
            longest = max((os.fsencode(part) for part in path.parts), key=len, default=b"")
            reason = (
                f"the name is too long ({len(longest)} bytes in one part, {len(os.fsencode(path))} "
                "in all); choose a shorter one"
            )
        case errno.ENOTDIR | errno.EEXIST | errno.EISDIR | errno.ELOOP:
            reason = f"{_obstacle(path)}; move it away, or choose another place"
        case errno.ENOENT:
            reason = f"the folder {existing_folder(path.parent)} was removed or cannot hold it"
            if not working_folder_exists():
                reason = NO_WORKING_FOLDER
        case errno.EIO | errno.ESTALE:
            reason = f"the disk or the connection to it fails ({reason})"
    return f"{path} cannot be written: {reason}"


def describe_system_error(error: OSError) -> str:
    """An error of the operating system in one line that names the file, if there is one."""
    named = error.filename2 or error.filename
    if named is None or isinstance(named, int):
        if not working_folder_exists():
            return NO_WORKING_FOLDER
        return f"{error.strerror or error} (working in {Path.cwd()})"
    if error.errno in _ONLY_WRITING:
        return describe_write_error(error, Path(os.fsdecode(named)))
    return f"{os.fsdecode(error.filename)}: {error.strerror}"


def folder_problem(path: Path) -> str | None:
    """What keeps files from being written into the folder ``path``, which need not exist; or None.

    Writes nothing.
    """
    try:
        str(path).encode("utf-8")
        path.lstat()
    except UnicodeEncodeError:
        return f"{str(path)!r} has a name that is not UTF-8"
    except FileNotFoundError:
        pass
    except OSError as error:
        return describe_write_error(error, path)
    inside = existing_folder(path)
    if path != inside and _first_missing(path, inside).is_symlink():
        return f"{path} cannot be written: {_obstacle(path)}"
    if path != inside and path.exists():
        return f"{path} is a file, not a folder"
    if not os.access(inside, os.W_OK | os.X_OK):
        read_only = os.statvfs(inside).f_flag & os.ST_RDONLY
        code = errno.EROFS if read_only else errno.EACCES
        return describe_write_error(OSError(code, os.strerror(code)), path)
    return None


def working_folder_exists() -> bool:
    """Whether the folder that the process works in still exists."""
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def _concerns(error: OSError, path: Path) -> bool:
    """Whether an error is about ``path``, a temporary file beside it or a parent, or no file."""
    if isinstance(error, ConnectionError | TimeoutError):
        return False
    names = [name for name in (error.filename, error.filename2) if name is not None]
    found = [Path(os.fsdecode(name)) for name in names if not isinstance(name, int)]
    return not names or any(
        file in (path, *path.parents)
        or path in file.parents
        or (file.parent == path.parent and file.name.startswith(f".{path.name}."))
        for file in found
    )


def _first_missing(path: Path, inside: Path) -> Path:
    """The part of ``path`` directly in the existing folder ``inside``."""
    return next((p for p in (path, *path.parents) if p.parent == inside != p), path)


def _space(path: Path, size: int | None) -> str:
    free = free_space(path)
    known = "" if free is None else f"{gib(free)} free in {existing_folder(path)}"
    return f"{known}{_needs(size)}".lstrip(", ") or "nothing is free"


def _needs(size: int | None) -> str:
    return "" if size is None else f", the file needs {gib(size)}"


def _obstacle(path: Path) -> str:
    """What stands in the place of ``path`` or of one of its parent folders."""
    part = _first_missing(path, existing_folder(path))
    if part.is_symlink() and not part.exists():
        return f"{part} is a link that leads nowhere"
    return f"{part} is a {'folder' if part.is_dir() else 'file'}"
