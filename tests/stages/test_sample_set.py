"""Sample sets: sampled in chunks, resumed, read as NumPy reads them."""

from __future__ import annotations

import errno
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pae_framework.errors import DataError, WriteError
from pae_framework.sampling import sample_set
from pae_framework.sampling.sample_set import open_set, prepare_chunks, write_chunk, write_set

LABELS = torch.arange(25) % 3
CHUNK = 10


def sample(indices: Tensor) -> Tensor:
    """Image i is 2 x 2, with i in red, i + 1 in green and the pixel's number in blue."""
    pixel = torch.arange(4).view(1, 2, 2).expand(len(indices), 2, 2)
    flat = indices.view(-1, 1, 1).expand(-1, 2, 2)
    return torch.stack([flat, flat + 1, pixel], dim=1).byte()


def written(path: Path, batch_size: int = 4) -> Path:
    list(write_set(path, LABELS, sample, batch_size, "this", CHUNK))
    return path


def test_numpy_reads_a_set(tmp_path):
    with np.load(written(tmp_path / "set.npz"), allow_pickle=False) as file:
        assert sorted(file) == ["arr_0", "arr_1"]
        images, labels = file["arr_0"], file["arr_1"]
    assert images.shape == (25, 2, 2, 3)
    assert images.dtype == np.uint8
    assert images[7].tolist() == [[[7, 8, 0], [7, 8, 1]], [[7, 8, 2], [7, 8, 3]]]
    assert labels.tolist() == LABELS.tolist()
    assert not (tmp_path / "set.parts").exists()


def test_images_are_memory_mapped(tmp_path):
    images, labels = open_set(written(tmp_path / "set.npz"))
    assert torch.equal(images, sample(torch.arange(25)))
    assert torch.equal(labels, LABELS)
    assert "set.npz" in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("batch_size", [1, 3, 10, 100])
def test_the_batch_size_changes_no_byte(tmp_path, batch_size):
    one = written(tmp_path / "one.npz", 7)
    other = written(tmp_path / "other.npz", batch_size)
    assert torch.equal(open_set(one)[0], open_set(other)[0])


def test_progress_counts_images(tmp_path):
    done = list(write_set(tmp_path / "set.npz", LABELS, sample, 4, "this", CHUNK))
    assert done == [4, 8, 10, 10, 14, 18, 20, 20, 24, 25, 25]


def test_an_interrupted_set_resumes_after_its_last_chunk(tmp_path):
    asked: list[int] = []

    def counting(indices: Tensor) -> Tensor:
        if 23 in indices and len(asked) < 24:
            raise KeyboardInterrupt
        asked.extend(indices.tolist())
        return sample(indices)

    path = tmp_path / "set.npz"
    with pytest.raises(KeyboardInterrupt):
        list(write_set(path, LABELS, counting, 1, "this", CHUNK))
    assert not path.exists()
    assert asked == list(range(23))
    asked.extend(range(100, 101))  # from now on 23 is sampled, too
    list(write_set(path, LABELS, counting, 1, "this", CHUNK))
    assert asked[24:] == [20, 21, 22, 23, 24]
    assert torch.equal(open_set(path)[0], sample(torch.arange(25)))


def test_a_batch_is_written_while_the_next_one_is_sampled(tmp_path, monkeypatch):
    sampled, append = threading.Event(), sample_set._append

    def waiting(*arguments: Any) -> None:
        assert sampled.wait(30)
        append(*arguments)

    def signaling(indices: Tensor) -> Tensor:
        if 0 not in indices:
            sampled.set()
        return sample(indices)

    monkeypatch.setattr(sample_set, "_append", waiting)
    path = tmp_path / "set.npz"
    list(write_set(path, LABELS, signaling, 4, "this", CHUNK))
    assert torch.equal(open_set(path)[0], sample(torch.arange(25)))


@pytest.mark.parametrize("failing", [0, 1, 2], ids=["first", "second", "last"])
def test_an_error_of_writing_a_batch_is_that_of_the_set(tmp_path, monkeypatch, failing):
    batches = iter(range(10))

    def full(*arguments: Any) -> None:
        if next(batches) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sample_set, "_append", full)
    with pytest.raises(WriteError) as raised:
        list(write_set(tmp_path / "set.npz", LABELS, sample, 4, "this", CHUNK))
    assert "set.parts/00000000.npy" in str(raised.value)
    assert [path.name for path in (tmp_path / "set.parts").iterdir()] == ["identity.txt"]


def test_images_of_different_sizes_in_a_chunk_are_an_error(tmp_path):
    def growing(indices: Tensor) -> Tensor:
        return sample(indices).repeat(1, 1, *([1 + int(indices[0]) // 4] * 2))

    with pytest.raises(DataError, match=r"\(3, 4, 4\).*\(3, 2, 2\)"):
        list(write_set(tmp_path / "set.npz", LABELS, growing, 4, "this", CHUNK))


def interrupted(path: Path, identity: str, labels: Tensor = LABELS) -> Path:
    """All chunks of a set of black images are there, but not the set; returns their folder."""
    for chunk in prepare_chunks(path, len(labels), identity, CHUNK):
        list(write_chunk(path, chunk, lambda indices: 0 * sample(indices), 5))
    return path.with_suffix(".parts")


@pytest.mark.parametrize("identity", ["that", None])
def test_chunks_of_another_set_are_not_used(tmp_path, identity):
    path = tmp_path / "set.npz"
    parts = interrupted(path, "that")
    assert len(list(parts.glob("*.npy"))) == 3
    if identity is None:  # of which nothing is known
        (parts / "identity.txt").unlink()
    assert torch.equal(open_set(written(path))[0], sample(torch.arange(25)))


def test_chunks_beyond_the_last_image_are_not_joined(tmp_path):
    path = tmp_path / "set.npz"
    interrupted(path, "this", torch.arange(45) % 3)
    list(write_set(path, LABELS[:10], sample, 4, "this", CHUNK))
    images, labels = open_set(path)
    assert (len(images), len(labels)) == (10, 10)
    list(write_set(tmp_path / "alone.npz", LABELS[:10], sample, 4, "this", CHUNK))
    assert stored(path) == stored(tmp_path / "alone.npz")


def stored(path: Path) -> int:
    """Bytes of the images, which readers may not all look at."""
    with zipfile.ZipFile(path) as archive:
        return archive.getinfo("arr_0.npy").file_size


@pytest.mark.parametrize("found", ["cut", "too few", "no images"])
def test_a_chunk_that_is_not_complete_is_sampled_again(tmp_path, found):
    path = tmp_path / "set.npz"
    part = interrupted(path, "this") / "00000010.npy"
    if found == "cut":
        part.write_bytes(part.read_bytes()[:-1])
    else:
        np.save(part, np.zeros((9, 2, 2, 3) if found == "too few" else (10, 2, 2), np.uint8))
    images = open_set(written(path))[0]
    assert torch.equal(images[10:20], sample(torch.arange(10, 20)))
    assert not images[:10].any()  # whole, so taken


def test_chunks_of_different_image_sizes_are_rejected(tmp_path):
    path = tmp_path / "set.npz"
    np.save(interrupted(path, "this") / "00000010.npy", np.zeros((10, 4, 4, 3), np.uint8))
    with pytest.raises(DataError) as refused:
        written(path)
    assert "00000010.npy" in str(refused.value)
    assert "(4, 4, 3)" in str(refused.value)
    assert not path.exists()


def test_other_files_in_a_folder_of_chunks_are_kept(tmp_path):
    path = tmp_path / "set.npz"
    notes = interrupted(path, "that") / "notes.txt"
    notes.touch()
    (notes.parent / ".00000020.npy.77.new").touch()  # of a process that was killed
    written(path)
    assert [file.name for file in notes.parent.iterdir()] == ["notes.txt"]


def test_a_compressed_set_of_another_program_is_read_too(tmp_path):
    images = sample(torch.arange(25)).permute(0, 2, 3, 1).numpy()
    np.savez_compressed(tmp_path / "other.npz", images, LABELS.numpy())
    assert torch.equal(open_set(tmp_path / "other.npz")[0], sample(torch.arange(25)))


@pytest.mark.parametrize(
    "damage", ["cut", "no zip", "no labels", "few labels", "floats", "objects", "lies"]
)
def test_other_files_are_rejected_by_name(tmp_path, damage):
    path = written(tmp_path / "set.npz")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "no zip":
        path.write_bytes(b"hello")
    elif damage == "no labels":
        np.savez(path, np.zeros((2, 2, 2, 3), np.uint8))
    elif damage == "few labels":
        np.savez(path, np.zeros((2, 2, 2, 3), np.uint8), np.zeros(1, np.int64))
    elif damage == "lies":  # about as many images as 10 ** 16
        np.savez(path, np.zeros((10, 2, 2, 3), np.uint8), np.zeros(10, np.int64))
        path.write_bytes(
            path.read_bytes().replace(
                b"(10, 2, 2, 3), }" + b" " * 15, b"(" + b"9" * 16 + b", 2, 2, 3), }"
            )
        )
    elif damage == "floats":
        np.savez(path, np.zeros((2, 2, 2, 3), np.float32), np.zeros(2, np.int64))
    else:
        np.savez(path, np.array([{}], dtype=object), np.zeros(1, np.int64))
    with pytest.raises(DataError, match=r"set\.npz"):
        open_set(path)


def test_images_are_stored_uncompressed(tmp_path):
    with zipfile.ZipFile(written(tmp_path / "set.npz")) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
