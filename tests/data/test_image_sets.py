"""Sets of images: drawn in parts, resumed, read as NumPy reads them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pae_framework.data import image_sets
from pae_framework.data.image_sets import draw_set, open_set
from pae_framework.errors import DataError

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
    list(draw_set(path, LABELS, draw, batch_size))
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
    done = list(draw_set(tmp_path / "set.npz", LABELS, draw, 4))
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
        list(draw_set(path, LABELS, counting, 1))
    assert not path.exists()
    assert asked == list(range(23))
    asked.extend(range(100, 101))  # from now on 23 is drawn, too
    list(draw_set(path, LABELS, counting, 1))
    assert asked[24:] == [20, 21, 22, 23, 24]
    assert torch.equal(open_set(path)[0], draw(torch.arange(25)))


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
