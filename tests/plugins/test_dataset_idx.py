"""MNIST-format files, written by hand, whole and damaged."""

import gzip
import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pae_datasets.arrays import resize_gray
from pae_datasets.config import IdxConfig
from pae_datasets.idx import Idx, read_idx
from pae_framework.data.images import read_images, read_masks
from pae_framework.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
LABELS = np.array([2, 0, 1, 1, 2, 0], np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def write(folder: Path, prefix: str = "train", dash: str = "-", compressed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("images{}idx3", PIXELS), ("labels{}idx1", LABELS)):
        content = idx_bytes(array)
        path = folder / f"{prefix}-{name.format(dash)}-ubyte{'.gz' if compressed else ''}"
        path.write_bytes(gzip.compress(content) if compressed else content)
    return folder


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dash", ["-", "."])
def test_reads_plain_and_gzipped_files_under_both_names(tmp_path, dash, compressed):
    folder = write(tmp_path, dash=dash, compressed=compressed)
    source = Idx(IdxConfig(folder=str(folder)), 28)

    images, labels = read_images(source)

    assert torch.equal(images[:, 1], torch.from_numpy(PIXELS))
    assert torch.equal(images[:, 0], images[:, 2])
    assert labels.tolist() == LABELS.tolist()
    assert list(source.class_names) == ["0", "1", "2"]


def test_the_splits_are_different_files(tmp_path):
    write(tmp_path, prefix="t10k")

    assert len(Idx(IdxConfig(folder=str(tmp_path), split="test"), 28)) == 6
    assert "train-images-idx3-ubyte" in IdxConfig(folder=str(tmp_path)).missing()


def test_the_first_existing_folder_is_used(tmp_path):
    write(tmp_path / "second")
    folders = (str(tmp_path / "first"), str(tmp_path / "second"))

    config = IdxConfig(folder=folders)

    assert config.missing() is None
    assert len(Idx(config, 28)) == 6


def test_missing_names_every_folder(tmp_path):
    problem = IdxConfig(folder=(str(tmp_path / "one"), str(tmp_path / "two"))).missing()

    assert str(tmp_path / "one") in problem
    assert str(tmp_path / "two") in problem
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "one"))):
        Idx(IdxConfig(folder=str(tmp_path / "one")), 28)


def test_28_px_are_padded_to_32_with_two_black_pixels_all_around(tmp_path):
    images, _ = read_images(Idx(IdxConfig(folder=str(write(tmp_path))), 32))

    assert torch.equal(images[:, 0, 2:30, 2:30], torch.from_numpy(PIXELS))
    assert images[:, :, :2].max() == 0
    assert images[:, :, :, 30:].max() == 0


def test_other_sizes_are_resized_unless_fit_is_pad(tmp_path):
    folder = str(write(tmp_path))
    doubled, _ = read_images(Idx(IdxConfig(folder=folder), 56))
    halved, _ = read_images(Idx(IdxConfig(folder=folder), 14))
    padded, _ = read_images(Idx(IdxConfig(folder=folder, fit="pad"), 56))

    assert doubled.shape == (6, 3, 56, 56)
    # Half-pixel bilinear: new pixel 1 lies a quarter of the way from old pixel 0 to old pixel 1.
    a, b = PIXELS[0, 0, :2].astype(float)
    assert abs(doubled[0, 0, 0, 1].item() - (0.75 * a + 0.25 * b)) <= 0.5
    assert halved.shape == (6, 3, 14, 14)
    assert torch.equal(padded[:, 0, 14:42, 14:42], torch.from_numpy(PIXELS))


def test_padding_cannot_shrink(tmp_path):
    with pytest.raises(DataError, match=r"\b28 px .*\b16 px.* fit=resize"):
        Idx(IdxConfig(folder=str(write(tmp_path)), fit="pad"), 16)


def test_limit_keeps_the_first_images_but_all_classes(tmp_path):
    source = Idx(IdxConfig(folder=str(write(tmp_path)), limit=1), 28)

    assert len(source) == 1
    assert len(source.class_names) == 3


def test_class_names_must_cover_the_labels(tmp_path):
    folder = str(write(tmp_path))
    named = Idx(IdxConfig(folder=folder, class_names=("shirt", "bag", "boot")), 28)

    assert list(named.class_names) == ["shirt", "bag", "boot"]
    with pytest.raises(DataError, match=r"labels-idx1-ubyte .*\b2\b.*`class_names` .*\b2\b"):
        Idx(IdxConfig(folder=folder, class_names=("shirt", "bag")), 28)


def test_masks_are_the_pixels_above_the_threshold(tmp_path):
    source = Idx(IdxConfig(folder=str(write(tmp_path)), mask_threshold=0.5), 28)

    # 0.5 * 255 = 127.5
    assert torch.equal(read_masks(source) == 1, torch.from_numpy(PIXELS) >= 128)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda content: content[:-5], r"\b4704\b.*6 x 28 x 28.*\b4699\b"),
        (lambda content: content + b"x", r"\b4704\b.*\b4705\b"),
        (lambda content: content[:10], r"header.*\b10\b"),
        (lambda content: b"", "nothing.*00000803"),
        (lambda content: b"\x89PNG" + content[4:], "89504e47.*00000803"),
        # float32 (type byte 0d) is not what MNIST has
        (lambda content: b"\x00\x00\x0d\x03" + content[4:], "00000d03"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage, expected):
    folder = write(tmp_path)
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(DataError, match=rf"train-images-idx3-ubyte: .*{expected}"):
        Idx(IdxConfig(folder=str(folder)), 28)


@pytest.mark.parametrize("damage", [lambda content: content[:-20], lambda content: b"plain text"])
def test_damaged_gzip_is_a_data_error(tmp_path, damage):
    folder = write(tmp_path, compressed=True)
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz"):
        Idx(IdxConfig(folder=str(folder)), 28)


def test_counts_of_images_and_labels_must_agree(tmp_path):
    folder = write(tmp_path)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS[:4]))

    with pytest.raises(DataError, match=r"\b6 images\b.*\b4 labels\b"):
        Idx(IdxConfig(folder=str(folder)), 28)


def test_images_must_be_square(tmp_path):
    folder = write(tmp_path)
    (folder / "train-images-idx3-ubyte").write_bytes(idx_bytes(PIXELS[:, :20]))

    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.*\(6, 20, 28\)"):
        Idx(IdxConfig(folder=str(folder)), 28)


def test_big_endian_numbers_of_the_header(tmp_path):
    # 0x0102 = 258 bytes announced, and 258 there.
    path = tmp_path / "array"
    path.write_bytes(b"\x00\x00\x08\x01\x00\x00\x01\x02" + bytes(258))

    assert read_idx(path, dimensions=1).shape == (258,)


def test_an_unknown_split_is_rejected():
    with pytest.raises(ValidationError, match="'train' or 'test'"):
        IdxConfig(folder="x", split="val")


# --- any header, any damage -----------------------------------------------------------------------


def idx_header(*shape: int) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


LYING = {
    "huge": (idx_header(2**32 - 1, 2**32 - 1, 2**32 - 1), 100),
    "terabyte": (idx_header(2**20, 2**10, 2**10), 1000),
    "one too many": (idx_header(3, 4, 4), 47),
    "one too few": (idx_header(3, 4, 4), 49),
    "no rows": (idx_header(3, 0, 0), 0),
    "no images": (idx_header(0, 28, 28), 0),
    "zeros": (b"", 1000),
    "four dimensions": (idx_header(1, 1, 2, 2), 4),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("lie", LYING)
def test_a_header_must_agree_with_the_bytes(tmp_path, lie, compressed):
    folder = write(tmp_path, compressed=compressed)
    path = folder / f"train-images-idx3-ubyte{'.gz' if compressed else ''}"
    header, count = LYING[lie]
    content = header + bytes(count)
    path.write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(DataError, match=re.escape(str(path))):
        Idx(IdxConfig(folder=str(folder)), 28)


LIMITED = """
import resource, sys
from pathlib import Path
from pae_datasets.idx import read_idx
from pae_framework.errors import DataError
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20),) * 2)
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        print(read_idx(path, 3).shape)
    except DataError as error:
        assert str(path) in str(error), error
        print(path.name)
"""


def test_memory_is_bounded_by_what_the_header_says_and_the_file_holds(tmp_path):
    zeros = gzip.compress(bytes(300 << 20), 1)  # 300 MiB of zeros
    (tmp_path / "a-zeros.gz").write_bytes(zeros)
    (tmp_path / "b-more.gz").write_bytes(gzip.compress(idx_header(2, 8, 8)) + zeros)
    (tmp_path / "c-huge.gz").write_bytes(gzip.compress(idx_header(2**31, 2**10, 2**10)) + zeros)
    (tmp_path / "d-memory.gz").write_bytes(gzip.compress(idx_header(300, 1024, 1024)) + zeros)
    with (tmp_path / "e-plain").open("wb") as sparse:
        sparse.write(idx_header(2, 8, 8))
        sparse.truncate(10 << 30)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["a-zeros.gz", "b-more.gz", "c-huge.gz", "d-memory.gz", "e-plain"]


def read_damaged(folder: Path, count: int) -> None:
    """Read randomly damaged copies of a plain and a gzipped file."""
    whole = idx_bytes(PIXELS)
    for number in range(count):
        chance = random.Random(number)
        path = folder / ("images.gz" if number % 2 else "images")
        content = bytearray(gzip.compress(whole, mtime=0) if number % 2 else whole)
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(chance.choice([20, len(content)]) % len(content) or 1)
            kind = chance.choice(["change", "cut", "insert"])
            if kind == "change":
                content[place] = chance.randrange(256)
            elif kind == "cut":
                del content[place + 1 :]
            else:
                content[place:place] = chance.randbytes(chance.randint(1, 9))
        path.write_bytes(content)
        try:
            array = read_idx(path, 3)
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            assert array.dim() == 3
            assert array.dtype == torch.uint8


def test_a_damaged_idx_file_is_named_or_gives_an_array(tmp_path):
    read_damaged(tmp_path, 300)


@pytest.mark.slow
def test_many_damaged_idx_files_are_named_or_give_an_array(tmp_path):
    read_damaged(tmp_path, 20_000)


def test_large_sets_are_resized_in_parts(tmp_path):
    levels = np.random.default_rng(1).integers(0, 256, (5000, 4, 4), np.uint8)
    images = torch.from_numpy(levels)
    whole = torch.nn.functional.interpolate(images[:, None].float(), size=(6, 6), mode="bilinear")
    assert torch.equal(resize_gray(images, 6), whole[:, 0].round().to(torch.uint8))


@pytest.mark.parametrize(
    ("labels", "facts"),
    [
        ([2, 0, 1, 1, 200, 0], ["200", "197", "200: 1"]),  # a damaged byte
        ([1, 1, 2, 2, 3, 3], ["1: 2", "3: 2"]),  # counted from 1
        ([5, 5, 5, 5, 5, 5], ["5: 6"]),
        ([0, 0, 0, 2, 2, 2], ["0: 3", "2: 3"]),
        ([255, 0, 1, 2, 3, 4], ["255: 1"]),
    ],
)
def test_labels_with_gaps_are_refused_with_their_counts(tmp_path, labels, facts):
    folder = write(tmp_path)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.array(labels, np.uint8)))
    with pytest.raises(DataError, match="class_names") as refused:
        Idx(IdxConfig(folder=str(folder)), 28)
    for fact in ("train-labels-idx1-ubyte", *facts):
        assert fact in str(refused.value)


def test_names_of_classes_say_that_a_gap_is_meant(tmp_path):
    folder = write(tmp_path)
    (folder / "train-labels-idx1-ubyte").write_bytes(
        idx_bytes(np.array([0, 0, 0, 2, 2, 2], np.uint8))
    )
    source = Idx(IdxConfig(folder=str(folder), class_names=("a", "b", "c")), 28)
    assert source.labels() == [0, 0, 0, 2, 2, 2]
