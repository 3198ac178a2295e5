"""Atomic writes, links and identities of files. No torch."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xxhash import xxh3_128

from pae_framework.system.file_errors import writing
from pae_framework.system.living import process_start

_CHUNK = 1 << 20
"""Bytes of a file that are hashed at once."""
_TEMPORARY = re.compile(r"\..+\.(\d+)\.new", re.DOTALL)
"""Names of temporary files, with the number of the process that writes them."""


@contextmanager
def replacing(path: Path, size: int | None = None) -> Iterator[Path]:
    """Write a file atomically: yields a temporary path and publishes it as ``path`` on success.

    Missing parent folders are created. Arguments as in
    :func:`~pae_framework.system.file_errors.writing`.

    Raises:
        WriteError: the file cannot be written; nothing of it is left.
    """
    # In containers, processes of several machines may have one number.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(3)}.{os.getpid()}.new")
    with writing(path, size):
        _make_folder(path.parent)
        try:
            yield temporary
            publish(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def follow_umask(path: Path) -> None:
    """Give a file the permissions of a new file; some libraries make theirs private."""
    probe = path.with_name(f".{path.name}.{secrets.token_hex(3)}.{os.getpid()}.new")
    try:
        probe.touch()
        path.chmod(probe.stat().st_mode)
    finally:
        probe.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Rename a file, or a folder of published files, so that a power loss cannot undo it.

    Its content is on the disk before it has its name, and the name is when this returns.
    """
    if temporary.is_dir():
        _sync_folder(temporary)
    else:
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


_NO_FOLDER_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES)
"""Errors where folders cannot be synced: some network mounts, a folder that cannot be read."""


def _sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def make_folder(path: Path) -> None:
    """Create a folder and its parents unless it exists.

    Raises:
        WriteError: it cannot be created.
    """
    with writing(path):
        _make_folder(path)


def _make_folder(path: Path) -> None:
    missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        _sync_folder(folder.parent)


def clear_unfinished(folder: Path, recursive: bool = True) -> None:
    """Remove the temporary files of :func:`replacing` that killed processes left in a folder.

    Files of other processes that are alive on this machine stay. The caller must not be writing
    into the folder itself.
    """
    for path in folder.rglob(".*.new") if recursive else folder.glob(".*.new"):
        match = _TEMPORARY.fullmatch(path.name)
        if match and not _is_other_living_process(int(match[1])):
            path.unlink(missing_ok=True)


def _is_other_living_process(number: int) -> bool:
    # A killed process may have had the number of this one.
    return number != os.getpid() and process_start(number) is not None


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically. Bytes that are not UTF-8 in names are escaped as in JSON."""
    content = text.encode("utf-8", "backslashreplace")
    with replacing(path, len(content)) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def json_digest(content: object) -> str:
    """Hash of the content of a JSON file, to be written into it."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def digest_of_text(text: str) -> str:
    """The digest by which a record knows a text that was written."""
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def read_text(path: Path) -> str:
    """Read a text file in UTF-8.

    Raises:
        OSError: it cannot be read, or is no regular file: a named pipe would block for ever.
        UnicodeDecodeError: it is not UTF-8.
    """
    require_regular_file(path)
    return path.read_text(encoding="utf-8")


def require_regular_file(path: Path) -> None:
    """Check that reading the file cannot block.

    Raises:
        OSError: it does not exist, or is a folder, a named pipe, or a device.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def read_json(path: Path) -> Any:
    """Read a JSON file; errors as in :func:`read_text`, or ValueError if it is not JSON."""
    text = read_text(path)
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def point(link: Path, target: Path) -> None:
    """Make ``link`` a relative symbolic link to ``target``, replacing an earlier link."""
    relative = os.path.relpath(target, link.parent)
    temporary = link.with_name(f".{link.name}.new")
    with writing(link):
        if link.is_symlink() and str(link.readlink()) == relative:
            return
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(relative)
        temporary.replace(link)
        _sync_folder(link.parent)


def file_digest(path: Path) -> str:
    """XXH3 digest of a file, all of which is read, in constant memory."""
    digest = xxh3_128()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


_KINDS = (
    (stat.S_ISDIR, "folder"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


def absolute(path: Path) -> Path:
    """The path from the root, without ``.`` and ``..``; links stay as they are."""
    return Path(os.path.normpath(path.absolute()))


def file_problem(path: Path, folder: bool = False) -> str | None:
    """Why ``path`` is not a file to read, nor a link to one; None if it is.

    Reading a pipe or a device may wait for ever, so each file that a user names is checked first.

    Args:
        path: what a user named.
        folder: whether it may be a folder instead.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"no such file: {path}"
    except (OSError, ValueError) as error:  # a ValueError: a name with a null character
        return f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
    if stat.S_ISREG(mode) or (folder and stat.S_ISDIR(mode)):
        return None
    kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "special file")
    return f"{path} is a {kind}, not a file"


def file_identity(path: Path, edge: int = 1 << 20) -> str:
    """Hash that identifies a large file without reading all of it.

    Args:
        path: the file.
        edge: bytes hashed at its beginning and at its end, beside its size.
    """
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=12)
    with path.open("rb") as file:
        digest.update(file.read(edge))
        file.seek(max(0, size - edge))
        digest.update(file.read(edge))
    return digest.hexdigest()
