"""Images in npz files: read in parts as they are stored, and refused with what to do."""

import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from pae_framework.data.npz import NpzImages, array_headers, read_array
from pae_framework.errors import DataError


def pixels(count=6, height=5, width=7, seed=0):
    shape = (count, height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def saved(path, *arrays, compressed=False, **named):
    (np.savez_compressed if compressed else np.savez)(path, *arrays, **named)
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_images_are_read_in_any_parts(tmp_path, compressed):
    stored = pixels()
    path = saved(tmp_path / "a.npz", stored, np.arange(6), compressed=compressed)
    images = NpzImages(path)
    expected = torch.from_numpy(stored).permute(0, 3, 1, 2)
    assert (len(images), images.size) == (6, (5, 7))
    for indices in ([0, 1], [2, 3, 4, 5], [1, 4], [0], [5], range(6)):
        assert torch.equal(images.read(indices), expected[list(indices)])


def test_a_long_header_of_version_two_is_read(tmp_path):
    stored = pixels()
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("arr_0.npy", "w") as f:
        np.lib.format.write_array(f, stored, version=(2, 0))
    assert torch.equal(
        NpzImages(tmp_path / "a.npz").read([5])[0], torch.tensor(stored[5]).permute(2, 0, 1)
    )


@pytest.mark.parametrize("compressed", [False, True])
def test_memory_is_that_of_a_batch(tmp_path, compressed):
    path = saved(tmp_path / "a.npz", np.zeros((400, 64, 64, 3), np.uint8), compressed=compressed)
    images = NpzImages(path)
    tracemalloc.start()
    for start in range(0, 400, 10):
        images.read(range(start, start + 10))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 64 * 64 * 3  # a tenth of the file


BAD = {
    "float": (pixels() / np.float32(255), "astype(np.uint8)"),
    "wider integers": (pixels().astype(np.int64), "astype(np.uint8)"),
    "channels first": (pixels().transpose(0, 3, 1, 2).copy(), "transpose(0, 2, 3, 1)"),
    "gray with a channel": (pixels()[..., :1], "repeat(3, 3)"),
    "gray, channel first": (pixels()[..., 0][:, None], "repeat(3, 1)"),
    "gray": (pixels()[..., 0], "np.stack"),
    "alpha": (np.zeros((6, 5, 7, 4), np.uint8), "alpha"),
    "one image": (pixels()[0], "(5, 7, 3)"),
    "columns first": (np.asfortranarray(pixels()), "ascontiguousarray"),
    "no image": (pixels(0), "at least one image"),
    "no pixels": (pixels(2, 0, 5), "at least one image"),
    "text": (np.array(["a", "b"]), "uint8"),
}


@pytest.mark.parametrize("kind", BAD)
def test_other_arrays_are_refused_with_a_remedy(tmp_path, kind):
    array, remedy = BAD[kind]
    path = saved(tmp_path / "a.npz", array)
    with pytest.raises(DataError) as raised:
        NpzImages(path)
    assert str(path) in str(raised.value)
    assert remedy in str(raised.value)
    assert str(array.shape) in str(raised.value)


def test_everything_wrong_is_said_at_once(tmp_path):
    path = saved(tmp_path / "a.npz", pixels().transpose(0, 3, 1, 2).copy() / 255)
    with pytest.raises(DataError, match=r"transpose.*astype"):
        NpzImages(path)


def test_labels_that_are_stored_first_are_named(tmp_path):
    path = saved(tmp_path / "a.npz", np.arange(6), pixels())
    with pytest.raises(DataError, match=r"np\.savez\(file, images, labels\)"):
        NpzImages(path)


def test_other_names_of_arrays_are_listed(tmp_path):
    with pytest.raises(DataError, match=r"arr_0 \(found: samples, y\)"):
        NpzImages(saved(tmp_path / "a.npz", samples=pixels(), y=np.arange(6)))


def test_python_objects_are_never_unpickled(tmp_path):
    path = saved(tmp_path / "a.npz", np.array([pixels(), None], dtype=object))
    with pytest.raises(DataError):
        NpzImages(path)
    with pytest.raises(DataError):
        read_array(path, "arr_0")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04 cut", "cut off"),
        (b"\x93NUMPY\x01\x00", r"np\.savez"),
        (b"<html>", "no npz"),
        (b"", "no npz"),
    ],
)
def test_files_of_another_kind(tmp_path, content, words):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        array_headers(path)


def test_a_file_that_was_cut_off_at_any_place(tmp_path):
    whole = saved(tmp_path / "whole.npz", pixels()).read_bytes()
    path = tmp_path / "cut.npz"
    for length in (30, 100, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.npz"):
            NpzImages(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_bytes_that_changed_are_noticed(tmp_path, compressed):
    path = saved(tmp_path / "a.npz", pixels(40), compressed=compressed)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz is damaged"):
        NpzImages(path).read(range(40))


def test_a_file_with_fewer_images_than_its_header_says(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("arr_0.npy", "w") as member:
        header = {"descr": "|u1", "fortran_order": False, "shape": (9, 5, 7, 3)}
        np.lib.format.write_array_header_1_0(member, header)
        member.write(pixels(6).tobytes())
    images = NpzImages(path)
    assert len(images.read(range(6))) == 6
    with pytest.raises(DataError, match="image 6 of 9"):
        images.read([6, 7])


@pytest.mark.parametrize("name", ["missing.npz", "folder"])
def test_a_missing_file(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=name):
        NpzImages(tmp_path / name)


def test_the_identity_is_that_of_the_contents(tmp_path):
    first = NpzImages(saved(tmp_path / "a.npz", pixels())).identity()
    same = (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    assert NpzImages(same).identity() == first
    assert NpzImages(saved(tmp_path / "c.npz", pixels(seed=1))).identity() != first
