"""Locks on folders, also on file systems without locks.

Where the system can lock files, the lock ends with its process, however that ends. On a file system
without locks, such as some network mounts, a *marker* takes its place: a file that names the
process that holds the folder. The marker of a process of this machine that no longer lives is
removed; that of another machine is believed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pae_framework.errors import RunError
from pae_framework.system.file_errors import writing
from pae_framework.system.files import make_folder, read_json

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of a file system that has no locks."""
LOCK = ".lock"
"""Name of the file that the process working in a folder holds."""
PATIENCE_SECONDS = 0.5
"""A lock that is held longer is held by a process that works, not by one that only asks."""
POLL_SECONDS = 1.0
"""Interval between two looks at the marker of another process."""

logger = logging.getLogger(__name__)


@contextmanager
def holding(folder: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a folder, so that no other process works in it; it is created if it does not exist.

    Args:
        folder: the folder to hold.
        waiting: called before waiting for another process to end; None: do not wait.

    Raises:
        RunError: another process holds the folder, and ``waiting`` is None; or something else is
            in the place of the lock.
        WriteError: the folder cannot be written.
    """
    make_folder(folder)
    path = folder / LOCK
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise RunError(f"{path} is not a regular file; remove it")
    with writing(path):
        held = _lock(path, waiting)
    try:
        yield
    finally:
        held()


def is_held(folder: Path) -> bool:
    """Whether a process holds the folder."""
    if _holder(_marker(folder / LOCK)) is not None:
        return True
    if not has_locks(folder):
        return False
    try:
        with FileLock(folder / LOCK).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
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


def _lock(path: Path, waiting: Callable[[], None] | None) -> Callable[[], None]:
    """Take the lock; returns what releases it."""
    if not has_locks(path.parent):
        return _mark(_marker(path), waiting)
    lock = FileLock(path)
    try:
        try:
            lock.acquire(timeout=PATIENCE_SECONDS)
        except Timeout:
            if waiting is None:
                raise RunError(_busy(path.parent, "another process")) from None
            waiting()
            lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return _mark(_marker(path), waiting)
    return lock.release


def _busy(folder: Path, holder: str) -> str:
    return f"{holder} is working on {folder}; wait until it ends, or stop it"


# --- markers --------------------------------------------------------------------------------------


def _marker(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _mark(marker: Path, waiting: Callable[[], None] | None) -> Callable[[], None]:
    """Create the marker; returns what removes it."""
    own = {"host": platform.node(), "process": os.getpid(), "started": _started(os.getpid())}
    while not _create(marker, own):
        holder = _holder(marker)
        if holder is None:
            marker.unlink(missing_ok=True)
        elif waiting is None:
            name = f"process {holder.get('process')} of {holder.get('host')}"
            raise RunError(
                f"{_busy(marker.parent, name)}. If no such process runs, delete {marker}"
            )
        else:
            waiting()
            while _holder(marker) is not None:
                time.sleep(POLL_SECONDS)
    _explain_markers()

    def remove() -> None:
        with suppress(OSError):
            marker.unlink(missing_ok=True)

    return remove


@cache
def _explain_markers() -> None:
    """Say it once in a process, not at every stage."""
    logger.warning("the file system has no locks; files .lock.json mark what is in use instead")


def _create(marker: Path, content: dict[str, Any]) -> bool:
    """Create the marker with its content in one step; False if there is one."""
    unfinished = marker.with_name(f".{marker.name}.{os.getpid()}.new")
    try:
        unfinished.write_text(json.dumps(content), encoding="utf-8")
        try:
            os.link(unfinished, marker)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            with suppress(FileExistsError), marker.open("x", encoding="utf-8") as file:
                file.write(json.dumps(content))
                return True
            return False
    finally:
        unfinished.unlink(missing_ok=True)
    return True


def _holder(marker: Path) -> dict[str, Any] | None:
    """What the marker says; None if there is none, or its process ended."""
    try:
        content = read_json(marker)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        return {"process": "unknown", "host": "an unknown machine"}
    if content.get("host") != platform.node():
        return content
    process = content.get("process")
    lives = isinstance(process, int) and _started(process) == content.get("started")
    return content if lives else None


def _started(process: int) -> str | None:
    """When a process of this machine started; None if it does not run."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    try:
        # The 22nd field; the second may contain spaces.
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        return status.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "unknown"
