"""Damaged training images: counted, named, skipped up to the recipe's limit."""

from __future__ import annotations

import errno
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from pae_framework.data import damaged
from pae_framework.data.damaged import SkippingSource, damaged_indices
from pae_framework.data.images import ImageBatches
from pae_framework.data.stream import CountStream
from pae_framework.errors import DataError
from pae_framework.plugins import load_registry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of four images; image (class, k) is a flat gray of value 10 (4 class + k)."""
    for place in range(8):
        path = tmp_path / "images" / f"class{place // 4}" / f"{place % 4}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 10 * place, np.uint8)).save(path)
    return tmp_path / "images"


def open_folder(folder: Path):
    spec = load_registry().find("dataset", "image_folder")
    return spec.component_class()(spec.config_class()(folder=str(folder)), 8)


def damage(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.write_bytes(path.read_bytes()[:40])


def gray(item) -> int:
    return int(item.image.unique().item())


def test_a_damaged_image_is_replaced_by_the_next_and_recorded_once(folder, tmp_path):
    damage(folder, "class0/1.png", "class0/2.png")
    record = tmp_path / "damaged.txt"
    source = SkippingSource(open_folder(folder), record, limit=2)
    assert [gray(source[index]) for index in range(8)] == [0, 30, 30, 30, 40, 50, 60, 70]
    assert gray(source[1]) == 30  # met again
    lines = record.read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["1", "2"]
    assert "class0/1.png: cannot be read as an image" in lines[0]


def test_the_label_is_that_of_the_replacement(folder, tmp_path):
    damage(folder, "class0/3.png", "class1/3.png")
    source = SkippingSource(open_folder(folder), tmp_path / "damaged.txt", limit=2)
    assert (gray(source[3]), source[3].label) == (40, 1)
    assert (gray(source[7]), source[7].label) == (0, 0)  # the last gives way to the first


def test_exceeding_the_limit_is_an_error_with_limit_and_record(folder, tmp_path):
    damage(folder, "class0/1.png", "class1/0.png")
    record = tmp_path / "damaged.txt"
    source = SkippingSource(open_folder(folder), record, limit=1)
    source[1]
    with pytest.raises(DataError, match=r"\b2\b.*max_damaged.* 1\b") as caught:
        source[4]
    assert str(record) in str(caught.value)
    assert damaged_indices(record) == {1, 4}


def test_a_source_without_readable_images_is_an_error(folder, tmp_path):
    damage(folder, *(f"class{c}/{k}.png" for c in (0, 1) for k in range(4)))
    source = SkippingSource(open_folder(folder), tmp_path / "damaged.txt", limit=100)
    with pytest.raises(DataError, match="none of the 8 training images"):
        source[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_replacements_do_not_depend_on_workers(folder, tmp_path, workers):
    damage(folder, "class0/1.png")
    source = SkippingSource(open_folder(folder), tmp_path / "damaged.txt", limit=1)
    stream = CountStream(len(source), batch_size=4, seed=0)
    batches = list(ImageBatches(source, stream, flip=False, workers=workers)(0, 4))
    expected = [
        [0, 20, 20, 30, 40, 50, 60, 70][i] for i in torch.cat([stream.batch(k) for k in range(4)])
    ]
    found = torch.cat([images[:, 0, 0, 0] for images, _ in batches]) * 255
    assert found.round().int().tolist() == expected
    assert damaged_indices(tmp_path / "damaged.txt") == {1}


def test_repaired_images_are_removed_from_the_record(folder, tmp_path):
    names = ["class0/1.png", "class0/2.png", "class1/0.png"]
    whole = {name: (folder / name).read_bytes() for name in names}
    damage(folder, *names)
    record = tmp_path / "damaged.txt"
    source = SkippingSource(open_folder(folder), record, limit=2)
    source[1]  # gives way to the third image, past the second
    with pytest.raises(DataError, match=r"max_damaged"):
        source[4]
    for name in names[:2]:
        (folder / name).write_bytes(whole[name])
    again = SkippingSource(open_folder(folder), record, limit=2)
    again.drop_repaired()
    assert [gray(again[index]) for index in range(8)] == [0, 10, 20, 30, 50, 50, 60, 70]
    assert damaged_indices(record) == {4}
    assert "class1/0.png: cannot be read as an image" in record.read_text()


def test_deleted_images_are_removed_from_the_record(folder, tmp_path):
    damage(folder, "class1/3.png")
    record = tmp_path / "damaged.txt"
    SkippingSource(open_folder(folder), record, limit=1)[7]
    assert damaged_indices(record) == {7}
    (folder / "class1/3.png").unlink()
    SkippingSource(open_folder(folder), record, limit=1).drop_repaired()
    assert damaged_indices(record) == set()


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE])
def test_an_image_is_read_again_after_an_error_of_the_operating_system(
    folder, tmp_path, monkeypatch, number
):
    opened, pauses, failures = Image.open, [], [OSError(number, "of the machine")]

    def open_image(path):
        if failures:
            raise failures.pop()
        return opened(path)

    source = SkippingSource(open_folder(folder), tmp_path / "damaged.txt", limit=1)
    monkeypatch.setattr(Image, "open", open_image)
    monkeypatch.setattr(time, "sleep", pauses.append)
    assert gray(source[3]) == 30
    assert not (tmp_path / "damaged.txt").exists()
    assert pauses == [damaged.PAUSE]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("AVIF"), SyntaxError("marker")])
def test_every_error_of_a_decoder_counts_as_damage(folder, tmp_path, monkeypatch, error):
    whole = ImageFile.ImageFile.load

    def load(image):
        if Path(image.filename).match("class0/1.png"):
            raise error
        return whole(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    source = SkippingSource(open_folder(folder), tmp_path / "damaged.txt", limit=1)
    assert gray(source[1]) == 20
    assert damaged_indices(tmp_path / "damaged.txt") == {1}


def test_the_record_holds_one_printable_line_per_image(folder, tmp_path):
    (folder / "class0/1.png").rename(folder / "class0/1\x1b[2J\n\t.png")
    damage(folder, "class0/1\x1b[2J\n\t.png")
    SkippingSource(open_folder(folder), tmp_path / "damaged.txt", limit=1)[1]
    (line,) = (tmp_path / "damaged.txt").read_text().splitlines()
    assert line.isprintable() or line.replace("\t", "", 1).isprintable()
    assert "\\x1b[2J" in line


def test_there_is_no_pause_after_other_errors(folder, tmp_path, monkeypatch):
    damage(folder, "class0/1.png")
    (folder / "class0/2.png").write_bytes(b"no image")
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited"))
    source = SkippingSource(open_folder(folder), tmp_path / "damaged.txt", limit=2)
    assert gray(source[1]) == 30


@pytest.mark.parametrize("content", [b"no number\n", b"\xff\t\n", b"1.5\treason\n"])
def test_a_damaged_list_of_damaged_images_is_named(folder, tmp_path, content):
    record = tmp_path / "damaged.txt"
    record.write_bytes(content)
    source = SkippingSource(open_folder(folder), record, limit=2)
    damage(folder, "class0/1.png")
    for read in (source.merge_records, source.drop_repaired, lambda: source[1]):
        with pytest.raises(DataError, match=re.escape(str(record))):
            read()


def of_ranks(folder: Path, record: Path, limit: int, ranks: int) -> list[SkippingSource]:
    """The sources of several processes of one stage."""
    return [SkippingSource(open_folder(folder), record, limit, rank) for rank in range(ranks)]


def test_several_processes_leave_the_record_of_one(folder, tmp_path):
    damage(folder, "class0/3.png", "class0/1.png", "class1/0.png", "class1/2.png")
    alone = SkippingSource(open_folder(folder), tmp_path / "alone" / "damaged.txt", limit=4)
    for index in (6, 3, 1, 4):
        alone[index]
    alone.merge_records()

    record = tmp_path / "together" / "damaged.txt"
    main, second, third = of_ranks(folder, record, 4, 3)
    for source, index in ((third, 6), (second, 3), (third, 1), (main, 4), (second, 6)):
        source[index]
    assert damaged_indices(record) == {1, 3, 4, 6}
    main.merge_records()
    assert [path.name for path in record.parent.iterdir()] == ["damaged.txt"]
    assert record.read_bytes() == (tmp_path / "alone" / "damaged.txt").read_bytes()
    assert [line.split("\t")[0] for line in record.read_text().splitlines()] == list("1346")


def test_the_main_process_logs_what_only_others_have_found(folder, tmp_path, caplog):
    damage(folder, "class0/1.png", "class0/3.png")
    main, second, third = of_ranks(folder, tmp_path / "damaged.txt", 2, 3)
    main[1]
    second[3]
    third[3]
    caplog.clear()
    main.merge_records()
    (record,) = caplog.records
    assert "class0/3.png" in record.getMessage()


def test_processes_append_to_records_of_their_own(folder, tmp_path):
    """Two machines that append to one file of a network file system may lose lines."""
    damage(folder, "class0/1.png", "class0/3.png")
    record = tmp_path / "damaged.txt"
    _, second, third = of_ranks(folder, record, 2, 3)
    second[1]
    before = [path.stat().st_mtime_ns for path in tmp_path.glob("damaged*")]
    third[3]
    third[1]  # the second process has recorded it
    assert len(before) == 1
    names = sorted(path.name for path in tmp_path.glob("damaged*"))
    assert names == ["damaged-rank1.txt", "damaged-rank2.txt"]
    assert [len(path.read_text().splitlines()) for path in tmp_path.glob("damaged*")] == [1, 1]


@pytest.mark.parametrize("ranks", [(0, 1, 2), (2, 1, 0), (1, 1, 2)])
def test_the_limit_is_that_of_all_processes_together(folder, tmp_path, ranks):
    damage(folder, "class0/1.png", "class0/3.png", "class1/1.png")
    record = tmp_path / "damaged.txt"
    sources = of_ranks(folder, record, 2, 3)
    first, second, third = (sources[rank] for rank in ranks)
    first[1]
    second[3]
    second[1]
    with pytest.raises(DataError, match=r"\b3\b.*max_damaged.* 2\b"):
        third[5]
    assert damaged_indices(record) == {1, 3, 5}


def test_another_number_of_processes_goes_on_with_the_records_of_a_killed_run(folder, tmp_path):
    names = ["class0/1.png", "class0/3.png"]
    whole = {name: (folder / name).read_bytes() for name in names}
    damage(folder, *names)
    record = tmp_path / "damaged.txt"
    _, second, third = of_ranks(folder, record, 2, 3)
    second[1]
    third[3]  # both are killed
    (folder / names[0]).write_bytes(whole[names[0]])
    (main,) = of_ranks(folder, record, 1, 1)
    main.merge_records()
    main.drop_repaired()
    assert damaged_indices(record) == {3}
    assert [path.name for path in tmp_path.glob("damaged*")] == ["damaged.txt"]
    assert gray(main[1]) == 10


@pytest.mark.parametrize("name", ["damaged.txt", "damaged-rank1.txt"])
@pytest.mark.parametrize("content", [b"no number\n", b"\xff\t\n"])
def test_a_damaged_record_of_any_process_is_named(folder, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    main, _ = of_ranks(folder, tmp_path / "damaged.txt", 2, 2)
    with pytest.raises(DataError, match=re.escape(str(tmp_path / name))):
        main.merge_records()
    assert (tmp_path / name).read_bytes() == content


def test_without_damaged_images_no_record_is_written(folder, tmp_path):
    source = SkippingSource(open_folder(folder), tmp_path / "damaged.txt", limit=2)
    source.merge_records()
    source.drop_repaired()
    assert [path for path in tmp_path.iterdir() if path != folder] == []
