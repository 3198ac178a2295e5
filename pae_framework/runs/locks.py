"""Locks on folders, also on file systems without locks.

Where the system can lock files, the lock ends with its process, however that ends and whatever
workers it leaves; the locked file names its holder. On a file system without locks, such as some
network mounts, a marker takes its place; see :mod:`~pae_framework.runs.markers`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from pae_framework.errors import RunError
from pae_framework.runs.holder import UNKNOWN, Holder, read_holder
from pae_framework.runs.markers import Waiting, mark, marked_by
from pae_framework.system.file_errors import writing
from pae_framework.system.files import make_folder

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of a file system that has no locks."""
LOCK, MARKER = LOCK_FILES = (".lock", ".lock.json")
"""Names of the file that the process working in a folder holds, and of its marker."""
PATIENCE_SECONDS = 0.5
"""A lock that is held longer is held by a process that works, not by one that only asks."""
_RETRY_SECONDS = 0.02


@contextmanager
def holding(folder: Path, waiting: Waiting | None = None) -> Iterator[None]:
    """Hold a folder, so that no other process works in it; it is created if it does not exist.

    Args:
        folder: the folder to hold.
        waiting: called with the process that holds it, before waiting for its end; None: do not
            wait.

    Raises:
        RunError: another process holds the folder, and ``waiting`` is None; or something else is
            in the place of the lock.
        WriteError: the folder cannot be written.
    """
    make_folder(folder)
    path = folder / LOCK
    _require_file(path)
    with writing(path):
        held = _lock(path, waiting)
    try:
        yield
    finally:
        held()


def is_held(folder: Path) -> bool:
    """Whether a process holds the folder; writes nothing."""
    if marked_by(folder / MARKER) is not None:
        return True
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        # Not exclusively: network mounts need a file opened for writing for that.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(descriptor)
    return False


def has_locks(folder: Path) -> bool:
    """Whether the file system of an existing folder can lock files; writes nothing."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)  # not the lock file, which it would hold
    except OSError:
        return True  # unknown
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _NO_LOCKS
    finally:
        os.close(descriptor)
    return True


def _require_file(path: Path) -> None:
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise RunError(f"{path} is not a regular file; remove it")


def _lock(path: Path, waiting: Waiting | None) -> Callable[[], None]:
    """Take the lock; returns what releases it."""
    if has_locks(path.parent):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(descriptor, path, waiting)
            _held.add(descriptor)
            return partial(_release, descriptor)
        except BaseException as error:
            os.close(descriptor)
            if not (isinstance(error, OSError) and error.errno in _NO_LOCKS):
                raise
    marker = path.with_name(MARKER)
    _require_file(marker)
    return mark(marker, waiting)


def _take(descriptor: int, path: Path, waiting: Waiting | None) -> None:
    """Lock the open file and name this process in it."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not _try_lock(descriptor):
        if time.monotonic() < end:
            time.sleep(_RETRY_SECONDS)
            continue
        holder = read_holder(path) or UNKNOWN
        if waiting is None:
            raise RunError(f"{holder} is working on {path.parent}; wait until it ends, or stop it")
        waiting(str(holder))
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        break
    with suppress(OSError):  # the disk may be full
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, Holder.this_process().text().encode(), 0)


def _try_lock(descriptor: int) -> bool:
    """Take the lock unless another process has it; whether it was taken."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _release(descriptor: int) -> None:
    if descriptor not in _held:  # in a fork of the process that holds it
        return
    _held.remove(descriptor)
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)


_held: set[int] = set()
"""Descriptors of the files that this process has locked."""


def _forget_held() -> None:
    """In a fork, such as a loader worker: the lock must end with the process that holds it."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_held)
