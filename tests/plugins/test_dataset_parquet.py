"""Parquet files written by the test: any image at any time, in one order."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pae_datasets import parquet
from pae_datasets.config import ImageFolderConfig, ParquetConfig
from pae_datasets.image_folder import ImageFolder
from pae_datasets.parquet import Parquet
from pae_framework.data.damaged import SkippingSource
from pae_framework.data.images import read_images
from pae_framework.data.read_ahead import read_steps
from pae_framework.errors import DataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SIDE = 16
LAYOUTS = ("bytes", "large", "struct", "reordered")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pae_framework" / "parquet_index"


def picture(number: int) -> bytes:
    """An image file that is all gray ``number``."""
    file = io.BytesIO()
    Image.new("RGB", (20, 16), (number, number, number)).save(file, "PNG")
    return file.getvalue()


def column(images: Sequence[bytes | None], layout: str = "struct") -> Any:
    if layout in ("bytes", "large"):
        return pa.array(images, pa.binary() if layout == "bytes" else pa.large_binary())
    fields = [("bytes", pa.binary()), ("path", pa.string())]
    kind = pa.struct(fields if layout == "struct" else fields[::-1])
    return pa.array([{"bytes": image, "path": f"{i}.png"} for i, image in enumerate(images)], kind)


def write(path: Path, columns: dict[str, Any], group: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def numbered(path: Path, first: int, count: int, layout: str = "struct", group: int = 2) -> Path:
    """Images whose gray is their number and whose label alternates."""
    numbers = range(first, first + count)
    images = column([picture(number) for number in numbers], layout)
    return write(path, {"image": images, "label": [number % 2 for number in numbers]}, group)


def source(place: Path, **settings: object) -> Parquet:
    return Parquet(ParquetConfig.model_validate({"folder": str(place), **settings}), SIDE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine images in three files of groups of two rows, and a file of another split."""
    for number, (first, count) in enumerate([(0, 5), (5, 3), (8, 1)]):
        numbered(tmp_path / "data" / f"train-{number:03d}.parquet", first, count)
    numbered(tmp_path / "data" / "val-000.parquet", 100, 2)
    return tmp_path / "data"


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [1, 2, 3, 100])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_come_in_the_order_of_files_and_rows(
    tmp_path: Path, layout: str, group: int
) -> None:
    numbered(tmp_path / "b.parquet", 5, 3, layout, group)
    numbered(tmp_path / "a.parquet", 0, 5, layout, group)
    found = source(tmp_path)
    images, labels = read_images(found)
    assert images[:, 0, 8, 8].tolist() == list(range(8))
    assert labels.tolist() == found.labels() == [0, 1] * 4
    assert list(found.class_names) == ["0", "1"]


def test_an_image_at_any_index_is_the_same_at_every_read(folder: Path) -> None:
    found = source(folder, pattern="train-*.parquet")
    assert len(found) == 9
    for index in (8, 0, 3, 3, 5, 4, 8):
        assert int(found[index].image[0, 0, 0]) == index
    with pytest.raises(IndexError):
        found[9]


def test_images_in_order_read_each_row_group_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, opened, read = source(folder, pattern="train-*.parquet"), parquet._opened, []
    monkeypatch.setattr(parquet, "_opened", lambda path: read.append(path.name) or opened(path))
    read_images(found)
    assert read == [f"train-{number:03d}.parquet" for number in (0, 0, 0, 1, 1, 2)]


def test_images_are_those_of_an_image_folder(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    files = []
    for number in range(4):
        file = tmp_path / "folder" / "only" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (50 + 9 * number, 70, 3), np.uint8)
        Image.fromarray(pixels).save(file, quality=90)
        files.append(file.read_bytes())
    write(tmp_path / "parquet" / "a.parquet", {"image": column(files), "label": [0] * 4})
    for reduced in (False, True):
        given = {"reduced_jpeg": reduced}
        config = ImageFolderConfig.model_validate({"folder": str(tmp_path / "folder"), **given})
        expected, _ = read_images(ImageFolder(config, SIDE))
        assert torch.equal(read_images(source(tmp_path / "parquet", **given))[0], expected)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
def test_labels_are_integers_of_any_width(tmp_path: Path, kind: str) -> None:
    labels = pa.array([1, 0], getattr(pa, kind)())
    write(tmp_path / "a.parquet", {"image": column([picture(0), picture(1)]), "label": labels})
    assert source(tmp_path).labels() == [1, 0]


def test_settings_choose_the_columns(tmp_path: Path) -> None:
    images = {"image": column([picture(1)]), "small": column([picture(2)], "bytes")}
    write(tmp_path / "a.parquet", {**images, "label": [9], "fine": [0]})
    chosen = source(tmp_path, image="small", label="fine", class_names=["only"])
    assert int(chosen[0].image[0, 0, 0]) == 2
    assert (chosen[0].label, list(chosen.class_names)) == (0, ["only"])


def test_processes_that_read_ahead_read_the_same(folder: Path) -> None:
    found = source(folder, pattern="train-*.parquet")
    found[3]  # a row group is kept
    read = partial(_two, found)
    here, there = (list(read_steps(read, 0, 4, workers)) for workers in (0, 2))
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def _two(found: Parquet, step: int) -> torch.Tensor:
    return read_images(found, [2 * step, 7 - step])[0]


# --- what is wrong --------------------------------------------------------------------------------

ONE = column([picture(0)])


def holding(label: Any = (0,), image: Any = ONE, **more: Any) -> Callable[[Path], object]:
    given = {"image": image, "label": label, **more}
    columns = {name: values for name, values in given.items() if values is not None}
    return lambda folder: write(folder / "a.parquet", columns)


def damaged(start: int, stop: int | None) -> Callable[[Path], object]:
    def cut(folder: Path) -> None:
        path = numbered(folder / "a.parquet", 0, 3)
        path.write_bytes(path.read_bytes()[start:stop])

    return cut


TWO_NAMED = pa.Table.from_arrays([ONE, ONE, pa.array([0])], names=["image", "image", "label"])
WRONG: dict[str, tuple[Callable[[Path], object], dict[str, object], list[str]]] = {
    "no label": (holding(label=None), {}, ["a.parquet", "label", "image"]),
    "no image": (holding(image=None), {}, ["a.parquet", "image", "label"]),
    "another column": (holding(), {"image": "img"}, ["a.parquet", "img"]),
    "two images": (
        lambda f: pq.write_table(TWO_NAMED, f / "a.parquet"),
        {},
        ["a.parquet", "image"],
    ),
    "a label in words": (holding(label=["cat"]), {}, ["a.parquet", "label", "string"]),
    "a label with fraction": (holding(label=[0.5]), {}, ["a.parquet", "label", "double"]),
    "a truth as label": (holding(label=[True]), {}, ["a.parquet", "label", "bool"]),
    "a negative label": (holding(label=[-1]), {}, ["a.parquet/0", "-1"]),
    "a huge label": (holding(label=[1 << 40]), {}, ["a.parquet/0", str(1 << 40)]),
    "no number": (
        holding(label=pa.array([0, None], pa.int64()), image=column([picture(0)] * 2)),
        {},
        ["a.parquet/1", "label"],
    ),
    "paths only": (holding(image=["x.png"]), {}, ["a.parquet", "image", "string"]),
    "a list of images": (holding(image=[[picture(0)]]), {}, ["a.parquet", "image", "list"]),
    "pixels": (holding(image=[[1, 2]]), {}, ["a.parquet", "image", "int64"]),
    "a struct without bytes": (holding(image=[{"path": "x"}]), {}, ["a.parquet", "struct"]),
    "a struct with text": (holding(image=[{"bytes": "x"}]), {}, ["a.parquet", "struct"]),
    "empty": (lambda f: (f / "a.parquet").write_bytes(b""), {}, ["a.parquet"]),
    "the start": (damaged(0, 200), {}, ["a.parquet"]),
    "the end": (damaged(100, None), {}, ["a.parquet"]),
    "another file": (
        lambda f: (f / "a.parquet").write_bytes(b"no such file" * 99),
        {},
        ["a.parquet"],
    ),
    "no rows": (holding(image=column([]), label=pa.array([], pa.int64())), {}, ["*.parquet"]),
    "a gap in the labels": (holding(label=[4]), {}, ["4"]),
    "another number of images": (holding(), {"images": 5}, ["1 images", "5"]),
    "another number of classes": (holding(), {"classes": 5}, ["1 classes", "5"]),
    "no file": (lambda f: None, {}, ["*.parquet"]),
    "no folder": (lambda f: None, {"folder": "/nowhere"}, ["/nowhere"]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_one_line_with_its_place(tmp_path: Path, wrong: str) -> None:
    make, settings, facts = WRONG[wrong]
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    with pytest.raises(DataError) as refused:
        source(tmp_path / "data", **settings)
    (line,) = str(refused.value).splitlines()
    assert all(fact in line for fact in facts), line


@pytest.mark.parametrize("content", [b"no image", b"", None], ids=["other", "empty", "a path only"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_damaged_image_is_named_and_can_be_replaced(
    tmp_path: Path, content: bytes | None, layout: str
) -> None:
    images = column([picture(0), content, picture(2)], layout)
    write(tmp_path / "a.parquet", {"image": images, "label": [0, 0, 0]})
    found = source(tmp_path)
    with pytest.raises(DataError, match=r"a\.parquet/1"):
        found[1]
    skipping = SkippingSource(found, tmp_path / "damaged.txt", 1)
    assert int(skipping[1].image[0, 0, 0]) in (0, 2)


def test_a_missing_struct_is_a_damaged_image(tmp_path: Path) -> None:
    images = pa.array([None, {"bytes": picture(1), "path": "x"}], column([]).type)
    write(tmp_path / "a.parquet", {"image": images, "label": [0, 0]})
    with pytest.raises(DataError, match=r"a\.parquet/0"):
        source(tmp_path)[0]


@pytest.mark.parametrize("change", ["gone", "shorter", "other"])
def test_a_file_that_changed_meanwhile_is_named(folder: Path, change: str) -> None:
    found, path = source(folder, pattern="train-*.parquet"), folder / "train-000.parquet"
    if change == "gone":
        path.unlink()
    elif change == "shorter":
        numbered(path, 0, 1)
    else:
        path.write_bytes(b"no parquet file")
    with pytest.raises(DataError, match=r"train-000\.parquet"):
        found[4]


# --- index and config -----------------------------------------------------------------------------


def test_a_file_is_scanned_once_and_again_when_it_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned: list[str] = []
    scan = parquet._scan

    def watched(path: Path, *columns: str) -> parquet.ParquetIndex:
        scanned.append(path.name)
        return scan(path, *columns)

    monkeypatch.setattr(parquet, "_scan", watched)
    first = source(folder, pattern="train-*.parquet")
    assert len(scanned) == 3
    scanned.clear()
    assert source(folder, pattern="train-*.parquet").labels() == first.labels()
    assert scanned == []
    numbered(folder / "train-001.parquet", 5, 4)
    assert len(source(folder, pattern="train-*.parquet")) == 10
    assert scanned == ["train-001.parquet"]


def test_a_damaged_index_is_made_anew(folder: Path, cache: Path) -> None:
    labels = source(folder).labels()
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:-30])
    assert source(folder).labels() == labels


def test_the_config_names_the_files_and_what_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ParquetConfig(folder=str(folder), pattern="train-*.parquet", images=9, classes=2)
    files = config.data_files()
    assert files is not None
    assert list(files) == [f"train-{number:03d}.parquet" for number in range(3)]
    assert (config.missing(), config.expected(), config.class_count()) == (None, (9, 2), 2)
    monkeypatch.setattr("pae_datasets.config.find_spec", lambda name: None)
    assert "pae-framework[parquet]" in (config.missing() or "")
    with pytest.raises(DataError, match=r"pae-framework\[parquet\]"):
        source(folder)
