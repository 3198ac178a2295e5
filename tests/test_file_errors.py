"""Errors of the operating system name the file, the reason and what to do."""

from __future__ import annotations

import errno
import os
import socket
import urllib.error
from pathlib import Path

import pytest

from pae_framework.errors import WriteError
from pae_framework.system.file_errors import (
    describe_system_error,
    folder_problem,
    gib,
    writing,
)
from pae_framework.system.files import (
    make_folder,
    point,
    read_json,
    replacing,
    write_json,
    write_text,
)

FACTS = {
    errno.ENOSPC: "disk is full",
    errno.EDQUOT: "quota",
    errno.EFBIG: "ulimit -f",
    errno.EROFS: "read-only",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.ENAMETOOLONG: "too long",
    errno.ENOENT: "removed",
    errno.EIO: "connection",
    errno.ESTALE: "connection",
    errno.EMFILE: os.strerror(errno.EMFILE),
    errno.ENOLCK: os.strerror(errno.ENOLCK),
}
"""What each error is called in the message."""


@pytest.mark.parametrize("number", FACTS, ids=errno.errorcode.get)
def test_the_message_names_the_file_and_the_reason(tmp_path: Path, number: int) -> None:
    path = tmp_path / "folder" / "result.json"
    with pytest.raises(WriteError) as caught, writing(path):
        raise OSError(number, os.strerror(number))
    assert str(path) in str(caught.value)
    assert FACTS[number] in str(caught.value)


def test_a_full_disk_says_how_much_is_free_and_how_much_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with pytest.raises(WriteError) as caught, writing(tmp_path / "not" / "yet" / "a", 3 << 30):
        raise OSError(errno.ENOSPC, "full")
    message = str(caught.value)
    assert "needs 3.0 GiB" in message
    assert gib(free)[-3:] in message
    assert f"free in {tmp_path}" in message


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "gone", "/elsewhere/source.png"),
        PermissionError(errno.EACCES, "no", "/elsewhere/source.png"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        TimeoutError(errno.ETIMEDOUT, "timeout"),
        socket.gaierror(),
        urllib.error.URLError("no route"),
        OSError("the connection ended after 3 of 4 bytes"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_about_something_else_pass_through(tmp_path: Path, error: OSError) -> None:
    with pytest.raises(type(error)) as caught, writing(tmp_path / "target"):
        raise error
    assert caught.value is error


def test_a_copy_onto_a_full_disk_blames_the_target(tmp_path: Path) -> None:
    with pytest.raises(WriteError) as caught, replacing(tmp_path / "target") as temporary:
        raise OSError(errno.ENOSPC, "full", "/elsewhere/source", None, str(temporary))
    assert str(tmp_path / "target") in str(caught.value)


@pytest.mark.parametrize("write", [write_text, write_json], ids=lambda write: write.__name__)
@pytest.mark.parametrize("blocked", ["file", "link", "loop", "long"])
def test_a_path_that_cannot_be_is_one_error(tmp_path: Path, write, blocked: str) -> None:
    folder = obstacle(tmp_path, blocked)
    for attempt in (
        lambda: write(folder / "sub" / "a.json", "text"),
        lambda: make_folder(folder / "sub"),
        lambda: point(folder / "link", tmp_path),
    ):
        with pytest.raises(WriteError) as caught:
            attempt()
        assert str(folder) in str(caught.value)


def obstacle(tmp_path: Path, kind: str) -> Path:
    """A path at which no folder can be made."""
    path = tmp_path / "obstacle"
    if kind == "file":
        path.write_text("", encoding="utf-8")
    elif kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "loop":
        path.symlink_to(path)
    else:
        path = tmp_path / ("x" * 300)
    return path


@pytest.mark.parametrize("kind", ["file", "link", "loop", "long", "not UTF-8"])
@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_folder_that_cannot_be_used_is_explained_beforehand(
    tmp_path: Path, kind: str, below: str
) -> None:
    path = Path(os.fsdecode(b"caf\xe9")) if kind == "not UTF-8" else obstacle(tmp_path, kind)
    problem = folder_problem(path / below)
    assert problem is not None
    assert ("UTF-8" if kind == "not UTF-8" else path.name) in problem
    problem.encode("utf-8")  # it can be printed
    assert not list(tmp_path.glob("obstacle/*"))


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_folder_that_can_be_used_has_no_problem(tmp_path: Path, below: str) -> None:
    assert folder_problem(tmp_path / below) is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_permission_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    problem = folder_problem(tmp_path / "new")
    assert problem is not None
    assert str(tmp_path) in problem


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (OSError(errno.EACCES, "Permission denied", "a.png"), ["a.png", "Permission denied"]),
        (OSError(errno.ENOSPC, "full", "from", None, "to"), ["to cannot be written", "full"]),
        (OSError(errno.EMFILE, "Too many open files"), ["Too many open files"]),
        (OSError(errno.EBADF, "Bad file descriptor", 3), ["Bad file descriptor"]),
        (OSError("no number"), ["no number"]),
        (OSError(errno.EACCES, "Permission denied", b"a.png"), ["a.png"]),
    ],
    ids=str,
)
def test_any_system_error_is_one_line(error: OSError, facts: list[str]) -> None:
    described = describe_system_error(error)
    assert "\n" not in described
    assert all(fact in described for fact in facts)


def test_a_deleted_working_directory_is_named_as_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "working directory" in describe_system_error(FileNotFoundError(errno.ENOENT, "none"))
    with pytest.raises(WriteError, match="working directory"):
        write_text(Path("a.txt"), "text")


def test_text_that_utf8_cannot_express_is_escaped(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "caf\udce9"})  # a file name that is not UTF-8
    assert read_json(tmp_path / "a.json") == {"name": "caf\udce9"}
