"""Sets of images: drawn in parts, resumed, read as NumPy reads them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pae_framework.errors import DataError
from pae_framework.sampling import sample_set as image_sets
from pae_framework.sampling.sample_set import draw_set, open_set

LABELS = torch.arange(25) % 3


def draw(indices: Tensor) -> Tensor:
    """Image i is 2 x 2, with i in red, i + 1 in green and the pixel's number in blue."""
    pixel = torch.arange(4).view(1, 2, 2).expand(len(indices), 2, 2)
    flat = indices.view(-1, 1, 1).expand(-1, 2, 2)
    return torch.stack([flat, flat + 1, pixel], dim=1).byte()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sets, "PART", 10)


def drawn(path: Path, batch_size: int = 4) -> Path:
    list(draw_set(path, LABELS, draw, batch_size, "this"))
    return path


def test_a_set_is_what_numpy_reads(tmp_path):
    with np.load(drawn(tmp_path / "set.npz"), allow_pickle=False) as file:
        assert sorted(file) == ["arr_0", "arr_1"]
        images, labels = file["arr_0"], file["arr_1"]
    assert images.shape == (25, 2, 2, 3)
    assert images.dtype == np.uint8
    assert images[7].tolist() == [[[7, 8, 0], [7, 8, 1]], [[7, 8, 2], [7, 8, 3]]]
    assert labels.tolist() == LABELS.tolist()
    assert not (tmp_path / "set.parts").exists()


def test_it_is_read_back_without_being_loaded(tmp_path):
    images, labels = open_set(drawn(tmp_path / "set.npz"))
    assert torch.equal(images, draw(torch.arange(25)))
    assert torch.equal(labels, LABELS)
    assert "set.npz" in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("batch_size", [1, 3, 10, 100])
def test_the_batch_size_changes_no_byte(tmp_path, batch_size):
    one = drawn(tmp_path / "one.npz", 7)
    other = drawn(tmp_path / "other.npz", batch_size)
    assert torch.equal(open_set(one)[0], open_set(other)[0])


def test_progress_counts_images(tmp_path):
    done = list(draw_set(tmp_path / "set.npz", LABELS, draw, 4, "this"))
    assert done == [4, 8, 10, 10, 14, 18, 20, 20, 24, 25, 25]


def test_an_interrupted_drawing_goes_on_after_its_last_part(tmp_path):
    asked: list[int] = []

    def counting(indices: Tensor) -> Tensor:
        if 23 in indices and len(asked) < 24:
            raise KeyboardInterrupt
        asked.extend(indices.tolist())
        return draw(indices)

    path = tmp_path / "set.npz"
    with pytest.raises(KeyboardInterrupt):
        list(draw_set(path, LABELS, counting, 1, "this"))
    assert not path.exists()
    assert asked == list(range(23))
    asked.extend(range(100, 101))  # from now on 23 is drawn, too
    list(draw_set(path, LABELS, counting, 1, "this"))
    assert asked[24:] == [20, 21, 22, 23, 24]
    assert torch.equal(open_set(path)[0], draw(torch.arange(25)))


def interrupted(path: Path, identity: str, labels: Tensor = LABELS) -> Path:
    """All parts of a set of black images are there, but not the set; returns their folder."""

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_sets, "_join", stop)
        drawing = draw_set(path, labels, lambda indices: 0 * draw(indices), 5, identity)
        with pytest.raises(KeyboardInterrupt):
            list(drawing)
    return path.with_suffix(".parts")


@pytest.mark.parametrize("identity", ["that", None])
def test_parts_of_something_else_are_not_taken(tmp_path, identity):
    path = tmp_path / "set.npz"
    parts = interrupted(path, "that")
    assert len(list(parts.glob("*.npy"))) == 3
    if identity is None:  # of which nothing is known
        (parts / "identity.txt").unlink()
    assert torch.equal(open_set(drawn(path))[0], draw(torch.arange(25)))


def test_parts_beyond_the_last_image_are_not_joined(tmp_path):
    path = tmp_path / "set.npz"
    interrupted(path, "this", torch.arange(45) % 3)
    list(draw_set(path, LABELS[:10], draw, 4, "this"))
    images, labels = open_set(path)
    assert (len(images), len(labels)) == (10, 10)
    list(draw_set(tmp_path / "alone.npz", LABELS[:10], draw, 4, "this"))
    assert stored(path) == stored(tmp_path / "alone.npz")


def stored(path: Path) -> int:
    """Bytes of the images, which readers may not all look at."""
    with zipfile.ZipFile(path) as archive:
        return archive.getinfo("arr_0.npy").file_size


@pytest.mark.parametrize("found", ["cut", "too few", "no images"])
def test_a_part_that_is_not_whole_is_drawn_again(tmp_path, found):
    path = tmp_path / "set.npz"
    part = interrupted(path, "this") / "00000010.npy"
    if found == "cut":
        part.write_bytes(part.read_bytes()[:-1])
    else:
        np.save(part, np.zeros((9, 2, 2, 3) if found == "too few" else (10, 2, 2), np.uint8))
    images = open_set(drawn(path))[0]
    assert torch.equal(images[10:20], draw(torch.arange(10, 20)))
    assert not images[:10].any()  # whole, so taken


def test_parts_of_several_sizes_are_no_set(tmp_path):
    path = tmp_path / "set.npz"
    np.save(interrupted(path, "this") / "00000010.npy", np.zeros((10, 4, 4, 3), np.uint8))
    with pytest.raises(DataError, match=r"00000010\.npy holds images of \(4, 4, 3\)"):
        drawn(path)
    assert not path.exists()


def test_a_folder_of_parts_keeps_what_is_someone_elses(tmp_path):
    path = tmp_path / "set.npz"
    notes = interrupted(path, "that") / "notes.txt"
    notes.touch()
    (notes.parent / ".00000020.npy.77.new").touch()  # of a process that was killed
    drawn(path)
    assert [file.name for file in notes.parent.iterdir()] == ["notes.txt"]


def test_a_compressed_set_of_another_program_is_read_too(tmp_path):
    images = draw(torch.arange(25)).permute(0, 2, 3, 1).numpy()
    np.savez_compressed(tmp_path / "other.npz", images, LABELS.numpy())
    assert torch.equal(open_set(tmp_path / "other.npz")[0], draw(torch.arange(25)))


@pytest.mark.parametrize("damage", ["cut", "no zip", "no labels", "floats", "objects"])
def test_what_is_no_set_is_refused_with_its_name(tmp_path, damage):
    path = drawn(tmp_path / "set.npz")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "no zip":
        path.write_bytes(b"hello")
    elif damage == "no labels":
        np.savez(path, np.zeros((2, 2, 2, 3), np.uint8))
    elif damage == "floats":
        np.savez(path, np.zeros((2, 2, 2, 3), np.float32), np.zeros(2, np.int64))
    else:
        np.savez(path, np.array([{}], dtype=object), np.zeros(1, np.int64))
    with pytest.raises(DataError, match=r"set\.npz"):
        open_set(path)


def test_images_are_stored_uncompressed(tmp_path):
    with zipfile.ZipFile(drawn(tmp_path / "set.npz")) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
