"""Files of a data set by their contents: what counts as a change, and what is read for it."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from pae_framework.data import contents
from pae_framework.data.contents import (
    Contents,
    cached_contents,
    is_recorded,
    read_contents,
    recorded_contents,
    unchanged_contents,
)
from pae_framework.errors import DataError

NAMES = ("a/0", "a/1", "b/0")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return write(tmp_path / "data")


def write(root: Path) -> dict[str, Path]:
    found = {}
    for name in NAMES:
        path = found[name] = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"contents of {name}")
    return found


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def times_restored(path: Path, change: Callable[[], object]) -> None:
    before = path.stat()
    change()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_rename(path: Path) -> None:
    other = path.with_name("other")
    other.write_text(path.read_text()[::-1])
    times = path.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)


REPLACED: dict[str, Callable[[Path], object]] = {
    "longer": lambda path: path.write_text("something longer than it was before"),
    "as long": lambda path: path.write_text(path.read_text()[::-1]),
    "as long, with the old time": lambda path: times_restored(
        path, lambda: path.write_text(path.read_text()[::-1])
    ),
    "another file, as long, with the old time": replace_by_rename,
    "empty": lambda path: path.write_text(""),
}


@pytest.mark.parametrize("kind", REPLACED)
def test_a_replaced_file_is_named(files: dict[str, Path], cache: Path, kind: str):
    before = cached_contents(files)
    REPLACED[kind](files["a/1"])
    now = cached_contents(files)
    assert now.identity != before.identity
    changes = now.changes_since(before)
    assert (changes.deleted, changes.replaced, changes.added) == ([], ["a/1"], [])


def test_deleted_and_added_files_are_named(files: dict[str, Path], cache: Path):
    before = cached_contents(files)
    renamed = {("c/2" if name == "b/0" else name): path for name, path in files.items()}
    changes = cached_contents(renamed).changes_since(before)
    assert (changes.deleted, changes.replaced, changes.added) == (["b/0"], [], ["c/2"])
    assert str(changes) == "deleted: b/0; added: c/2"


def test_the_place_of_the_files_does_not_count(tmp_path: Path, cache: Path):
    here, there = (cached_contents(write(tmp_path / name)) for name in ("here", "there/far"))
    assert here.identity == there.identity


@pytest.mark.parametrize("change", [os.utime, lambda path: path.chmod(0o600)])
def test_times_and_modes_do_not_count(files: dict[str, Path], cache: Path, change):
    before = cached_contents(files)
    for path in files.values():
        change(path)
    assert cached_contents(files).identity == before.identity


def test_names_and_contents_cannot_be_exchanged_for_each_other(tmp_path: Path, cache: Path):
    one, other = tmp_path / "1", tmp_path / "2"
    one.write_text("x")
    other.write_text("y")
    plain = read_contents({"a": one, "b": other})
    assert plain.identity != read_contents({"a": other, "b": one}).identity
    assert plain.identity == read_contents({"b": other, "a": one}).identity


@pytest.mark.parametrize("position", [0, 3_000_000, 199_999_999])
def test_every_byte_of_a_large_file_counts(tmp_path: Path, position: int):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    before = read_contents({"x": path})
    with path.open("r+b") as file:
        file.seek(position)
        file.write(b"1")
    assert read_contents({"x": path}).identity != before.identity


def test_a_large_file_is_read_in_constant_memory(tmp_path: Path):
    path = tmp_path / "large"
    path.write_bytes(bytes(50_000_000))
    tracemalloc.start()
    try:
        read_contents({"x": path})
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


# --- the cache ------------------------------------------------------------------------------------


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose contents are read."""
    found: list[str] = []
    digest = contents.file_digest

    def counted(path: Path) -> str:
        found.append(f"{path.parent.name}/{path.name}")
        return digest(path)

    monkeypatch.setattr(contents, "file_digest", counted)
    return found


def test_unchanged_files_are_read_once(files: dict[str, Path], cache: Path, read: list[str]):
    first = cached_contents(files)
    assert sorted(read) == sorted(NAMES)
    read.clear()
    assert cached_contents(files) == first
    assert read == []
    files["b/0"].write_text("else")
    cached_contents(files)
    assert read == ["b/0"]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "text": lambda content: b"text",
    "cut off": lambda content: content[:-1],
    "without its last line": lambda content: content[: content[:-1].rindex(b"\n") + 1],
    "another digest": lambda content: content.replace(b"a", b"b", 1),
    "bytes": lambda content: bytes(range(256)),
    "one line twice": lambda content: content + content.splitlines(keepends=True)[-1],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_ignored(
    files: dict[str, Path], cache: Path, read: list[str], damage: str
):
    first = cached_contents(files)
    (stored,) = (path for path in cache.rglob("*") if path.is_file())
    whole = stored.read_bytes()
    stored.write_bytes(DAMAGE[damage](whole))
    assert recorded_contents(stored) is None
    assert not is_recorded(stored)
    read.clear()
    assert cached_contents(files) == first
    assert sorted(read) == sorted(NAMES)
    assert stored.read_bytes() == whole  # written anew


def test_data_sources_in_one_folder_do_not_forget_each_other(
    files: dict[str, Path], cache: Path, read: list[str]
):
    """As the training and test images of `idx`, which give their files the same names."""
    train, test = {"images": files["a/0"]}, {"images": files["a/1"]}
    for _ in range(2):
        for source in (train, test):
            cached_contents(source)
    assert sorted(read) == ["a/0", "a/1"]


def test_files_that_are_gone_are_forgotten_when_others_change(files: dict[str, Path], cache: Path):
    cached_contents(files)
    (stored,) = (path for path in cache.rglob("*") if path.is_file())
    files.pop("a/1").unlink()
    files["a/0"].write_text("else")
    cached_contents(files)
    assert b"a/1" not in stored.read_bytes()


@pytest.mark.parametrize("change", [os.utime, Path.unlink, lambda path: path.write_text("else")])
def test_files_that_are_not_as_in_the_cache_are_not_read_if_that_is_not_wanted(
    files: dict[str, Path], cache: Path, read: list[str], change: Callable[[Path], object]
):
    assert unchanged_contents(files) is None
    assert not cache.exists()
    known = cached_contents(files)
    (stored,) = (path for path in cache.rglob("*") if path.is_file())
    read.clear()
    assert unchanged_contents(files) == known
    change(files["a/1"])
    before = stored.read_bytes()
    assert unchanged_contents(files) is None
    assert read == []
    assert stored.read_bytes() == before


def test_a_cache_that_cannot_be_written_is_not_needed(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cached_contents(files) == read_contents(files)


def test_a_user_without_a_home_has_no_cache(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError()))
    assert cached_contents(files) == read_contents(files)


def test_a_file_that_is_gone_is_named(files: dict[str, Path]):
    files["a/1"].unlink()
    with pytest.raises(DataError, match="a/1"):
        read_contents(files)


@pytest.mark.parametrize(
    "name",
    [
        *(os.fsdecode(b"a/\xff\n.png"), "\\", "\\n", "\\\n", "\n\\\\n", "a\tb c"),
        *("\r\u2028\x0b", "\u00e9/\u754c", ""),
    ],
)
def test_names_of_any_bytes_are_stored(tmp_path: Path, name: str):
    path = tmp_path / "x"
    path.touch()
    before = read_contents({name: path, "other": path})
    before.write(tmp_path / "stored.txt")
    assert recorded_contents(tmp_path / "stored.txt") == before
    str(Contents({}).changes_since(before)).encode()  # can be printed
