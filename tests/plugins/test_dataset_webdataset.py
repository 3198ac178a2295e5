"""Tar shards written by the test, in each of tar's formats: any image at any time, in one order."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from pae_datasets.config import ImageFolderConfig, WebDatasetConfig
from pae_datasets.image_folder import ImageFolder
from pae_datasets.webdataset import WebDataset
from pae_framework.data.damaged import SkippingSource
from pae_framework.data.images import read_images
from pae_framework.data.read_ahead import read_steps
from pae_framework.errors import DataError

SIDE = 16
Files = Iterable[tuple[str, bytes]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pae_framework" / "tar_index"


def picture(number: int, kind: str = "PNG", size: tuple[int, int] = (20, 16)) -> bytes:
    """An image file that is all gray ``number``."""
    file = io.BytesIO()
    Image.new("RGB", size, (number, number, number)).save(file, kind)
    return file.getvalue()


def shard(path: Path, files: Files, form: int = tarfile.USTAR_FORMAT, mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=form) as tar:  # type: ignore[call-overload]
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def samples(first: int, count: int, prefix: str = "") -> list[tuple[str, bytes]]:
    """Image and label of samples whose gray is their number and whose label alternates."""
    files = []
    for number in range(first, first + count):
        stem = f"{prefix}{number:04d}"
        files += [(f"{stem}.png", picture(number)), (f"{stem}.cls", b"%d" % (number % 2))]
    return files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven images in three shards, and a shard of another split."""
    for number, (first, count) in enumerate([(0, 3), (3, 3), (6, 1)]):
        shard(tmp_path / "data" / f"train-{number:03d}.tar", samples(first, count))
    shard(tmp_path / "data" / "val-000.tar", samples(100, 2))
    return tmp_path / "data"


def source(place: Path, **settings: object) -> WebDataset:
    config = WebDatasetConfig.model_validate({"folder": str(place), **settings})
    return WebDataset(config, SIDE)


# --- what is read ---------------------------------------------------------------------------------


def test_images_come_in_the_order_of_shards_and_files(folder: Path) -> None:
    found = source(folder, pattern="train-*.tar")
    images, labels = read_images(found)
    assert images[:, 0, 8, 8].tolist() == list(range(7))
    assert labels.tolist() == found.labels() == [0, 1, 0, 1, 0, 1, 0]
    assert list(found.class_names) == ["0", "1"]
    assert len(found) == 7
    with pytest.raises(IndexError):
        found[7]


def test_an_image_at_any_index_is_the_same_at_every_read(folder: Path) -> None:
    found = source(folder, pattern="train-*.tar")
    for index in (6, 0, 3, 3, 5, 6):
        assert int(found[index].image[0, 0, 0]) == index


def test_images_are_those_of_an_image_folder(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    files = []
    for number in range(4):
        file = tmp_path / "folder" / "only" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (50 + 9 * number, 70, 3), np.uint8)
        Image.fromarray(pixels).save(file, quality=90)
        files += [(file.name, file.read_bytes()), (f"{number}.cls", b"0\n")]
    shard(tmp_path / "tar" / "a.tar", files)
    for reduced in (False, True):
        given = {"reduced_jpeg": reduced}
        config = ImageFolderConfig.model_validate({"folder": str(tmp_path / "folder"), **given})
        expected, _ = read_images(ImageFolder(config, SIDE))
        assert torch.equal(read_images(source(tmp_path / "tar", **given))[0], expected)


LONG = "a/" * 60 + "b/" * 30
"""A folder that needs a long name: beyond what the first tar format holds."""


@pytest.mark.parametrize(
    ("form", "prefix"),
    [
        (tarfile.USTAR_FORMAT, ""),
        (tarfile.USTAR_FORMAT, "./n01440764/n01440764_"),
        (tarfile.GNU_FORMAT, LONG),
        (tarfile.PAX_FORMAT, LONG),
        (tarfile.PAX_FORMAT, "höhle/"),
    ],
    ids=["plain", "in a folder", "gnu", "pax", "not ascii"],
)
def test_every_format_of_tar_is_read(tmp_path: Path, form: int, prefix: str) -> None:
    shard(tmp_path / "a.tar", samples(0, 3, prefix), form)
    assert read_images(source(tmp_path))[0][:, 0, 0, 0].tolist() == [0, 1, 2]


def test_files_of_a_sample_may_be_in_any_order_beside_others(tmp_path: Path) -> None:
    path = shard(
        tmp_path / "a.tar",
        [
            ("x.1.cls", b"7"),  # the extension is all after the first dot: no label
            ("x.cls", b"1"),
            ("x.json", b"{}"),
            ("x.JPG", picture(9, "JPEG")),
            ("x.seg.png", picture(200)),
            (".hidden.png", picture(3)),
            ("y.png", picture(5)),
            ("y.cls", b" 0 "),
        ],
    )
    with tarfile.open(path, "a") as tar:
        for kind, name in ((tarfile.DIRTYPE, "z"), (tarfile.SYMTYPE, "z.png")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "y.png"
            tar.addfile(member)
    images, labels = read_images(source(tmp_path))
    assert images[:, 0, 8, 8].tolist() == [9, 5]
    assert labels.tolist() == [1, 0]


def test_settings_choose_image_and_label(tmp_path: Path) -> None:
    files = [("x.jpg", picture(1)), ("x.seg.png", picture(2)), ("x.class", b"0"), ("x.cls", b"9")]
    shard(tmp_path / "a.tar", files)
    chosen = source(tmp_path, image="seg.png", label="class", class_names=["only"])
    assert int(chosen[0].image[0, 0, 0]) == 2
    assert chosen[0].label == 0
    assert list(chosen.class_names) == ["only"]


def test_processes_that_read_ahead_read_the_same(folder: Path) -> None:
    found = source(folder, pattern="train-*.tar")
    read = partial(_two, found)
    here, there = (list(read_steps(read, 0, 3, workers)) for workers in (0, 2))
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def _two(found: WebDataset, step: int) -> torch.Tensor:
    return read_images(found, [2 * step, 2 * step + 1])[0]


# --- what is wrong --------------------------------------------------------------------------------


def only(*files: tuple[str, bytes]) -> Callable[[Path], object]:
    return lambda folder: shard(folder / "a.tar", files)


def truncated(folder: Path) -> None:
    path = shard(folder / "a.tar", samples(0, 3))
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 3)


def not_tar(folder: Path) -> None:
    (folder / "a.tar").write_bytes(b"no tar file" * 100)


IMAGE, LABEL = ("x.png", picture(1)), ("x.cls", b"0")
WRONG: dict[str, tuple[Callable[[Path], object], dict[str, object], list[str]]] = {
    "no label": (only(IMAGE), {}, ["a.tar/x", ".cls"]),
    "no image": (only(LABEL), {}, ["a.tar/x"]),
    "no image of that extension": (only(IMAGE, LABEL), {"image": "jpg"}, ["a.tar/x", ".jpg"]),
    "two images": (only(IMAGE, ("x.jpg", b""), LABEL), {}, ["x.jpg", "image"]),
    "two labels": (only(IMAGE, LABEL, LABEL), {}, ["x.cls"]),
    "a label in words": (only(IMAGE, ("x.cls", b"cat")), {}, ["x.cls", "cat"]),
    "a negative label": (only(IMAGE, ("x.cls", b"-1")), {}, ["x.cls", "-1"]),
    "an empty label": (only(IMAGE, ("x.cls", b"")), {}, ["x.cls"]),
    "a huge label": (only(IMAGE, ("x.cls", b"9" * 30)), {}, ["x.cls"]),
    "a long label": (only(IMAGE, ("x.cls", b" " * 99)), {}, ["x.cls"]),
    "compressed": (lambda f: shard(f / "a.tar", [IMAGE, LABEL], mode="w:gz"), {}, ["a.tar"]),
    "truncated": (truncated, {}, ["a.tar"]),
    "another file": (not_tar, {}, ["a.tar"]),
    "empty": (only(), {}, ["*.tar"]),
    "a gap in the labels": (only(IMAGE, ("x.cls", b"4")), {}, ["4"]),
    "too few names": (only(IMAGE, ("x.cls", b"4")), {"class_names": ["a", "b"]}, ["4", "2"]),
    "another number of images": (only(IMAGE, LABEL), {"images": 5}, ["1 images", "5"]),
    "another number of classes": (only(IMAGE, LABEL), {"classes": 5}, ["1 classes", "5"]),
    "no shard": (lambda f: None, {}, ["*.tar"]),
    "no folder": (lambda f: None, {"folder": "/nowhere"}, ["/nowhere"]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_one_line_with_its_place(tmp_path: Path, wrong: str) -> None:
    write, settings, facts = WRONG[wrong]
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    with pytest.raises(DataError) as refused:
        source(tmp_path / "data", **settings)
    (line,) = str(refused.value).splitlines()
    assert all(fact in line for fact in facts), line


@pytest.mark.parametrize(
    "given",
    [
        *({"pattern": pattern} for pattern in ("", "/data/*.tar")),
        *({key: text} for key in ("image", "label") for text in ("", ".jpg", "JPG", "a/b")),
        {"class_names": ["a", "b"], "classes": 3},
        {"class_names": []},
    ],
)
def test_settings_that_make_no_sense_are_rejected(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        WebDatasetConfig.model_validate({"folder": "data", **given})


def test_a_damaged_image_is_named_and_can_be_replaced(tmp_path: Path) -> None:
    files = samples(0, 3)
    files[2] = (files[2][0], b"no image")
    shard(tmp_path / "a.tar", files)
    found = source(tmp_path)
    with pytest.raises(DataError, match=r"a\.tar/0001"):
        found[1]
    skipping = SkippingSource(found, tmp_path / "damaged.txt", 1)
    assert int(skipping[1].image[0, 0, 0]) == 2


def test_a_shard_that_became_shorter_is_named(folder: Path) -> None:
    found = source(folder, pattern="train-*.tar")
    (folder / "train-001.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"train-001\.tar/0004"):
        found[4]
    (folder / "train-001.tar").unlink()
    with pytest.raises(DataError, match=r"train-001\.tar/0004"):
        found[4]


# --- the index ------------------------------------------------------------------------------------


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards that are scanned."""
    seen: list[str] = []
    opened = tarfile.open

    def watched(path: Path, mode: str) -> tarfile.TarFile:
        seen.append(path.name)
        return opened(path, mode)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(tarfile, "open", watched)
    return seen


def test_a_shard_is_scanned_once_and_again_when_it_changes(
    folder: Path, scanned: list[str]
) -> None:
    first = source(folder, pattern="train-*.tar")
    assert sorted(scanned) == ["train-000.tar", "train-001.tar", "train-002.tar"]
    scanned.clear()
    assert source(folder, pattern="train-*.tar").labels() == first.labels()
    assert scanned == []
    source(folder, pattern="train-*.tar", image="png")
    assert len(scanned) == 3
    scanned.clear()
    (folder / "train-001.tar").unlink()
    with tarfile.TarFile(folder / "train-001.tar", "w") as tar:
        for name, content in samples(3, 2):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    again = source(folder, pattern="train-*.tar", image="png")
    assert scanned == ["train-001.tar"]
    assert read_images(again)[0][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 6]


@pytest.mark.parametrize("damage", [b"", b"no archive", None], ids=["empty", "other", "cut"])
def test_a_damaged_index_is_made_anew(
    folder: Path, cache: Path, scanned: list[str], damage: bytes | None
) -> None:
    labels = source(folder).labels()
    scanned.clear()
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:-30] if damage is None else damage)
    assert source(folder).labels() == labels
    assert len(scanned) == 4


def test_without_a_cache_each_source_scans(
    folder: Path, tmp_path: Path, scanned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(source(folder)) == len(source(folder)) == 9
    assert len(scanned) == 8


# --- the config -----------------------------------------------------------------------------------


def test_the_config_names_the_files_and_what_is_missing(folder: Path) -> None:
    config = WebDatasetConfig(folder=str(folder), pattern="train-*.tar", images=7, classes=2)
    files = config.data_files()
    assert files is not None
    assert list(files) == ["train-000.tar", "train-001.tar", "train-002.tar"]
    assert all(path == folder / name for name, path in files.items())
    assert (config.missing(), config.expected(), config.class_count()) == (None, (7, 2), 2)
    for path in files.values():
        path.unlink()
    assert config.data_files() is None
    assert "train-*.tar" in (config.missing() or "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_among_the_shards_is_left_out(folder: Path) -> None:
    os.mkfifo(folder / "val-001.tar")
    assert len(source(folder, pattern="val-*.tar", class_names=["a", "b"])) == 2
