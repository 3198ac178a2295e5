"""The cache of decoded images: what it gives is always what decoding would give."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pae_datasets.image_cache as module
from pae_datasets.config import ImageFolderConfig
from pae_datasets.image_folder import ImageFolder
from pae_framework.data.image_notes import ImageNotes
from pae_framework.data.images import read_image

SIDE = 8
COUNT = 6


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of noise, of which no file counts as just changed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_RECENT_NS", -(10**18))
    (tmp_path / "data" / "one").mkdir(parents=True)
    for n in range(COUNT):
        save(tmp_path / "data" / "one" / f"{n}.png", n)
    return tmp_path / "data"


def save(path: Path, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (20, 30, 4), np.uint8)
    Image.fromarray(noise).save(path)


def source(folder: Path, **settings: object) -> ImageFolder:
    return ImageFolder(ImageFolderConfig(folder=str(folder), **settings), SIDE)


def read_all(images: ImageFolder) -> list[torch.Tensor]:
    return [images[n].image for n in range(len(images))]


def decoded(folder: Path) -> list[torch.Tensor]:
    files = sorted((folder / "one").iterdir())
    return [read_image(path, SIDE, background="white") for path in files]


def cache_files(folder: Path) -> list[Path]:
    return sorted((folder.parent / "cache" / "pae_framework" / "images").glob("*"))


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are decoded from now on."""
    found: list[str] = []

    def read(path: Path, **settings: object) -> torch.Tensor:
        found.append(path.name)
        return read_image(path, **settings)

    monkeypatch.setattr(module, "read_image", read)
    return found


def test_a_second_read_decodes_nothing(folder, decodes):
    first = read_all(source(folder))
    assert len(decodes) == COUNT
    second = read_all(source(folder))
    assert len(decodes) == COUNT
    assert all(map(torch.equal, first, decoded(folder)))
    assert all(map(torch.equal, second, first))


def swap(one: Path, other: Path) -> None:
    one.rename(one.with_suffix(".tmp"))
    other.rename(one)
    one.with_suffix(".tmp").rename(other)


def replace_with_equal_time(path: Path) -> None:
    found = path.stat()
    path.unlink()
    save(path, 99)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "replaced": lambda folder: save(folder / "3.png", 77),
    "replaced, with the old time": lambda folder: replace_with_equal_time(folder / "3.png"),
    "exchanged": lambda folder: swap(folder / "1.png", folder / "4.png"),
    "one added in front": lambda folder: save(folder / "00.png", 50),
    "one removed": lambda folder: (folder / "0.png").unlink(),
    "renamed": lambda folder: (folder / "0.png").rename(folder / "9.png"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_files_are_decoded_again(folder, change):
    read_all(source(folder))
    CHANGES[change](folder / "one")
    assert all(map(torch.equal, read_all(source(folder)), decoded(folder)))
    assert len(source(folder)) == len(decoded(folder))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: bytes(len(content)),
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: content[:300] + bytes([content[300] ^ 1]) + content[301:],
        lambda content: content[100:] + content[:100],
    ],
)
def test_a_damaged_cache_gives_no_wrong_image(folder, damage):
    read_all(source(folder))
    (file,) = cache_files(folder)
    file.write_bytes(damage(file.read_bytes()))
    assert all(map(torch.equal, read_all(source(folder)), decoded(folder)))


@pytest.mark.parametrize("place", ["folder in place of the file", "read-only", "file in the way"])
def test_an_unusable_cache_is_no_error(folder, place):
    read_all(source(folder))
    (file,) = cache_files(folder)
    if place == "read-only":
        file.chmod(0o400)
    else:
        file.unlink()
    if place == "folder in place of the file":
        file.mkdir()
    elif place == "file in the way":
        file.parent.rmdir()
        file.parent.write_text("")
    assert all(map(torch.equal, read_all(source(folder)), decoded(folder)))


def test_settings_that_change_pixels_have_their_own_cache(folder):
    white = read_all(source(folder))
    black = read_all(source(folder, background="black"))
    assert not any(map(torch.equal, white, black))
    assert all(map(torch.equal, read_all(source(folder)), white))
    assert ImageFolder(ImageFolderConfig(folder=str(folder)), 4)[0].image.shape == (3, 4, 4)


@pytest.mark.parametrize(
    "others",
    [
        {"holdout": 0.5, "part": "test"},
        {"holdout": 0.3},
        {"exclude": ("one/0.png",)},
        {"holdout": 0.5, "exclude": ("one/0.png",)},
    ],
    ids=str,
)
def test_selections_of_one_folder_are_cached_side_by_side(folder, decodes, others):
    for n in range(COUNT, 20):
        save(folder / "one" / f"{n}.png", n)
    selections = ({"holdout": 0.5}, others)
    first = [read_all(source(folder, **settings)) for settings in selections]
    read = len(decodes)
    second = [read_all(source(folder, **settings)) for settings in selections]
    assert read == len(decodes) == sum(map(len, first))
    for before, after in zip(first, second, strict=True):
        assert all(map(torch.equal, before, after))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_the_cache_of_all_processes(folder, monkeypatch, number):
    one, other = source(folder), source(folder)
    expected = decoded(folder)
    assert torch.equal(one[0].image, expected[0])

    def full(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "pwrite", full)
        assert torch.equal(one[1].image, expected[1])
    assert cache_files(folder) == []
    for images in (one, other):
        assert all(map(torch.equal, read_all(images), expected))
    assert cache_files(folder) == []


def test_notes_of_cached_images_are_noted_again(folder, monkeypatch):
    found = []
    for _ in range(2):
        notes = ImageNotes()
        monkeypatch.setattr("pae_framework.data.image_files.NOTES", notes)
        monkeypatch.setattr(module, "NOTES", notes)
        read_all(source(folder, background="stored"))
        found.append(notes.take())
    assert found[0] == found[1]
    assert [len(files) for files in found[1].values()] == [COUNT]


def test_readers_at_once_get_the_same_images(folder):
    images = [pickle.loads(pickle.dumps(source(folder))) for _ in range(4)]
    results: list[list[torch.Tensor]] = []
    threads = [
        threading.Thread(target=lambda one=one: results.append(read_all(one))) for one in images
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = decoded(folder)
    assert len(results) == len(threads)
    assert all(all(map(torch.equal, result, expected)) for result in results)
    assert all(map(torch.equal, read_all(source(folder)), expected))


def test_a_file_that_may_still_change_unseen_is_not_cached(folder, monkeypatch, decodes):
    monkeypatch.setattr(module, "_RECENT_NS", 10**18)
    images = source(folder)
    read_all(images)
    read_all(images)
    assert len(decodes) == 2 * COUNT


def test_a_folder_beyond_the_limit_is_not_cached(folder):
    read_all(source(folder, cache_gib=0.0))
    read_all(source(folder, cache_gib=COUNT * 3 * SIDE**2 / 2**30))  # records are a bit longer
    assert cache_files(folder) == []


def test_the_oldest_caches_make_room(folder):
    by_age: list[Path] = []
    for age, color in enumerate(("white", "black", "stored")):
        read_all(source(folder, background=color))
        (new,) = set(cache_files(folder)) - set(by_age)
        os.utime(new, (age, age))
        by_age.append(new)
    each = COUNT * (3 * SIDE**2 + 256) / 2**30
    read_all(source(folder, background=(1, 2, 3), cache_gib=2.5 * each))
    assert [path.exists() for path in by_age] == [False, False, True]
    assert len(cache_files(folder)) == 2


@pytest.mark.parametrize("home", ["", "/proc/none"])
def test_without_a_place_for_a_cache_images_are_decoded(folder, monkeypatch, home):
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    monkeypatch.setenv("HOME", "/proc/none")
    assert all(map(torch.equal, read_all(source(folder)), decoded(folder)))
