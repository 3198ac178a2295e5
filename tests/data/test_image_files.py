"""Image files: what they say besides their pixels, damage of any kind, and bounded memory."""

from __future__ import annotations

import io
import logging
import random
import struct
import subprocess
import sys
import textwrap
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile

from pae_framework.data import image_files, images
from pae_framework.data.image_notes import ImageNotes
from pae_framework.data.images import read_image
from pae_framework.errors import DataError

# A picture whose four quarters differ, so that no two orientations look the same.
QUARTERS = [[10, 90], [160, 240]]
ORIENTATION = 0x0112


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> ImageNotes:
    """The notes of this test alone."""
    fresh = ImageNotes()
    monkeypatch.setattr(image_files, "NOTES", fresh)
    return fresh


def quarters(levels: list[list[int]] = QUARTERS, side: int = 8) -> np.ndarray:
    """Gray levels (2 side, 2 side, 3), one per quarter."""
    plane = np.kron(np.array(levels, np.uint8), np.ones((side, side), np.uint8))
    return np.repeat(plane[..., None], 3, axis=2)


def corners(image: torch.Tensor) -> list[list[int]]:
    """Levels in the middle of the quarters, rounded to tens, which no codec used here changes."""
    side = image.shape[-1]
    at = (side // 4, 3 * side // 4)
    return [[round(int(image[0, y, x]) / 10) * 10 for x in at] for y in at]


def found(notes: ImageNotes) -> list[str]:
    return list(notes.take())


# --- orientation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        # EXIF 2.3, 4.6.4: which edges of the picture row 0 and column 0 of the file are.
        (1, [[10, 90], [160, 240]]),  # top, left
        (2, [[90, 10], [240, 160]]),  # top, right
        (3, [[240, 160], [90, 10]]),  # bottom, right
        (4, [[160, 240], [10, 90]]),  # bottom, left
        (5, [[10, 160], [90, 240]]),  # left, top
        (6, [[160, 10], [240, 90]]),  # right, top
        (7, [[240, 90], [160, 10]]),  # right, bottom
        (8, [[90, 240], [10, 160]]),  # left, bottom
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_an_image_is_turned_as_its_exif_data_says(tmp_path, notes, suffix, orientation, upright):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(quarters()).save(path, exif=exif)
    assert corners(read_image(path, 16)) == upright


def test_the_crop_is_taken_from_the_upright_image(tmp_path, notes):
    # 8 wide and 3 high in the file, upright 3 x 8: the rows 2 to 4 remain, (8 - 3) // 2 = 2.
    # Orientation 6: row r of the upright image is column r of the file.
    columns = np.broadcast_to(np.arange(8, dtype=np.uint8)[None, :, None] * 20, (3, 8, 3))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(columns).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png", 3)
    assert image[0].tolist() == [[40] * 3, [60] * 3, [80] * 3]
    assert "turned" in found(notes)[0]


@pytest.mark.parametrize("value", [0, 9, 4711])
def test_an_unknown_orientation_turns_nothing(tmp_path, notes, value):
    exif = Image.Exif()
    exif[ORIENTATION] = value
    Image.fromarray(quarters()).save(tmp_path / "a.png", exif=exif)
    assert corners(read_image(tmp_path / "a.png", 16)) == QUARTERS
    assert found(notes) == []


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0nonsense"]
)
def test_damaged_exif_data_does_not_make_an_image_unreadable(tmp_path, notes, exif):
    Image.fromarray(quarters()).save(tmp_path / "a.jpg", exif=exif)
    assert corners(read_image(tmp_path / "a.jpg", 16)) == QUARTERS


# --- transparency, profiles, frames, modes --------------------------------------------------------


def palette_with_a_hole() -> Image.Image:
    image = Image.fromarray(quarters()).convert("L").quantize(4)
    image.info["transparency"] = 0
    return image


TRANSPARENT = {
    "RGBA": lambda: Image.fromarray(np.dstack([quarters(), np.full((16, 16), 254, np.uint8)])),
    "LA": lambda: Image.fromarray(np.dstack([quarters()[..., 0], np.zeros((16, 16), np.uint8)])),
    "P": palette_with_a_hole,
}


@pytest.mark.parametrize("mode", TRANSPARENT)
def test_transparency_is_ignored_and_noted(tmp_path, notes, mode):
    TRANSPARENT[mode]().save(tmp_path / "a.png")
    assert corners(read_image(tmp_path / "a.png", 16)) == QUARTERS
    (note,) = found(notes)
    assert "transparent" in note


def test_a_transparent_color_is_noted(tmp_path, notes):
    Image.fromarray(quarters()).save(tmp_path / "a.png", transparency=(10, 10, 10))
    assert corners(read_image(tmp_path / "a.png", 16)) == QUARTERS
    assert "transparent" in found(notes)[0]


def test_an_opaque_alpha_channel_is_not_noted(tmp_path, notes):
    Image.fromarray(quarters()).convert("RGBA").save(tmp_path / "a.png")
    read_image(tmp_path / "a.png", 16)
    assert found(notes) == []


def test_a_color_profile_is_named_unless_it_is_srgb(tmp_path, notes):
    for name in ("sRGB", "LAB"):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()
        Image.fromarray(quarters()).save(tmp_path / f"{name}.png", icc_profile=profile)
        assert corners(read_image(tmp_path / f"{name}.png", 16)) == QUARTERS
    (note,) = found(notes)
    assert "Lab" in note


def test_a_damaged_color_profile_does_not_make_an_image_unreadable(tmp_path, notes):
    Image.fromarray(quarters()).save(tmp_path / "a.png", icc_profile=b"no profile")
    assert corners(read_image(tmp_path / "a.png", 16)) == QUARTERS
    assert "profile" in found(notes)[0]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_the_first_of_several_frames_is_read_and_noted(tmp_path, notes, suffix):
    first, second = quarters(), quarters([[0, 0], [0, 0]])
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    frames = [Image.fromarray(second)]
    Image.fromarray(first).save(path, save_all=True, append_images=frames, **options)
    assert corners(read_image(path, 16)) == QUARTERS
    assert "frames" in found(notes)[0]


def test_cmyk_is_converted_and_noted(tmp_path, notes):
    Image.fromarray(quarters()).convert("CMYK").save(tmp_path / "a.tif")
    assert corners(read_image(tmp_path / "a.tif", 16)) == QUARTERS
    assert "CMYK" in found(notes)[0]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_without_a_fixed_range_are_refused_before_decoding(tmp_path, notes, mode):
    path = tmp_path / "a.tif"
    Image.fromarray(quarters()).convert("L").convert(mode).save(path)
    with pytest.raises(DataError, match=rf"a\.tif.*\bmode {mode}\b"):
        read_image(path, 16)


def test_drawing_commands_are_not_executed(tmp_path, notes, monkeypatch):
    monkeypatch.setattr(subprocess, "check_call", lambda *a, **k: pytest.fail("ran a program"))
    Image.fromarray(quarters()).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg.*EPS"):
        read_image(tmp_path / "a.jpg", 16)


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("decoder"),
        SyntaxError("marker"),
        struct.error("unpack"),
        zlib.error("stream"),
        MemoryError(),
        OverflowError("size"),
        EOFError("end"),
        IndexError("index"),
        KeyError("tag"),
        TypeError("type"),
        RecursionError("depth"),
        Image.DecompressionBombError("bomb"),
        AssertionError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_error_of_a_decoder_names_the_file(tmp_path, notes, monkeypatch, error):
    def fail(image):
        raise error

    Image.fromarray(quarters()).save(tmp_path / "a.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(DataError, match=r"a\.png: cannot be read as an image: .") as caught:
        read_image(tmp_path / "a.png", 16)
    assert caught.value.__cause__ is error


def test_a_stop_by_the_user_is_no_damage(tmp_path, notes, monkeypatch):
    def stop(image):
        raise KeyboardInterrupt

    Image.fromarray(quarters()).save(tmp_path / "a.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", stop)
    with pytest.raises(KeyboardInterrupt):
        read_image(tmp_path / "a.png", 16)


def whole_files() -> dict[str, bytes]:
    """One small file of each format and mode that Pillow writes and reads here."""
    Image.init()
    files = {}
    for kind in sorted(set(Image.SAVE) & set(Image.OPEN)):
        for mode in ("RGB", "P", "RGBA", "L", "CMYK", "I;16"):
            content = io.BytesIO()
            try:
                picture = Image.fromarray(quarters())
                picture = picture.convert("L").convert(mode) if mode == "I;16" else picture
                picture.convert(mode).save(content, kind)
                with warnings.catch_warnings(action="ignore"):
                    Image.open(content).load()
            except Exception:
                continue  # this format has no such mode
            files[f"{kind} {mode}"] = content.getvalue()
    return files


def damaged(whole: bytes, seed: random.Random) -> bytes:
    """The file after one to four random changes."""
    content = bytearray(whole)
    for _ in range(seed.randint(1, 4)):
        place = seed.randrange(len(content) or 1)
        kind = seed.choice(["change", "cut", "insert", "header", "header"])
        if kind == "change":
            content[place : place + 1] = seed.randbytes(1)
        elif kind == "cut":
            del content[place:]
        elif kind == "insert":
            content[place:place] = seed.randbytes(seed.randint(1, 9))
        else:
            extremes = [
                b"\xff" * 4,
                bytes(4),
                b"\x7f\xff\xff\xff",
                b"\0\0\xff\xff",
                b"\xff\xff\0\0",
            ]
            start = seed.randrange(min(120, len(content) or 1))
            content[start : start + 4] = seed.choice(extremes)
    return bytes(content)


def read_damaged(folder: Path, count: int, first_seed: int) -> None:
    files = list(whole_files().values())
    path = folder / "damaged.jpg"
    for number in range(count):
        path.write_bytes(damaged(files[number % len(files)], random.Random(first_seed + number)))
        try:
            image = read_image(path, 8)
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            assert (image.shape, image.dtype) == ((3, 8, 8), torch.uint8)


def test_a_damaged_file_is_named_or_gives_an_image(tmp_path, notes):
    assert len(whole_files()) > 50
    read_damaged(tmp_path, 300, 0)


@pytest.mark.slow
def test_many_damaged_files_are_named_or_give_an_image(tmp_path, notes):
    read_damaged(tmp_path, 20_000, 1000)


# --- memory ---------------------------------------------------------------------------------------


def png(width: int, height: int, rows: bytes | None = None) -> bytes:
    """A black gray-scale PNG, one bit per pixel; ``rows``: what follows its header instead."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    rows = bytes((1 + -(-width // 8)) * height) if rows is None else rows
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from pae_framework.data.images import read_image
from pae_framework.errors import DataError
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (int(sys.argv[2]) << 20),) * 2)
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        print(path.name, list(read_image(path, 256).shape))
    except DataError as error:
        assert str(path) in str(error), error
        print(path.name, "DataError")
"""


def read_limited(folder: Path, mib: int) -> dict[str, str]:
    """Read all files of a folder in a process that may allocate ``mib`` more."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED), str(folder), str(mib)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def test_memory_is_bounded_whatever_the_header_says(tmp_path):
    (tmp_path / "wide.png").write_bytes(png(60_000, 1))
    (tmp_path / "high.png").write_bytes(png(1, 60_000))
    (tmp_path / "band.png").write_bytes(png(120_000, 300))
    (tmp_path / "bomb.png").write_bytes(png(2**31 - 1, 2**31 - 1, b"\0"))
    (tmp_path / "flat.png").write_bytes(png(2**31 - 1, 1, b"\0"))
    (tmp_path / "none.png").write_bytes(png(0, 5, b"\0"))
    (tmp_path / "lies.png").write_bytes(png(12_000, 12_000, b"\0" * 100))
    square = "[3, 256, 256]"
    assert read_limited(tmp_path, 600) == {
        "band.png": square,
        "bomb.png": "DataError",
        "flat.png": "DataError",
        "high.png": square,
        "lies.png": "DataError",
        "none.png": "DataError",
        "wide.png": square,
    }


def test_an_image_beyond_the_memory_is_damaged(tmp_path):
    (tmp_path / "large.png").write_bytes(png(7900, 7900))
    assert read_limited(tmp_path, 100) == {"large.png": "DataError"}


@pytest.mark.parametrize(
    ("width", "height"),
    [(170_000_000, 1), (1, 170_000_000), (64_000_001, 1), (1, 1_000_001), (13_000, 13_000)],
)
def test_small_files_of_many_pixels_are_refused_by_their_header(tmp_path, notes, width, height):
    path = tmp_path / "a.png"
    path.write_bytes(png(width, height, b"\0"))
    with pytest.raises(DataError, match=rf"a\.png.*\b{width} x {height}\b.*\b64 million\b"):
        read_image(path, 16)


def test_the_largest_image_takes_bounded_memory(tmp_path):
    (tmp_path / "square.png").write_bytes(png(8000, 8000))
    (tmp_path / "long.png").write_bytes(png(64, 1_000_000))
    square = "[3, 256, 256]"
    assert read_limited(tmp_path, 600) == {"square.png": square, "long.png": square}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "CMYK", "I;16"])
def test_the_largest_image_of_each_mode_takes_bounded_memory(tmp_path, mode):
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    suffix, options = (".tif", {}) if mode == "CMYK" else (".png", {"exif": turned})
    if mode == "P":
        options["transparency"] = 0
    Image.new(mode, (8000, 8000)).save(tmp_path / f"a{suffix}", **options)
    assert read_limited(tmp_path, 650) == {f"a{suffix}": "[3, 256, 256]"}


def test_only_jpeg_is_decoded_smaller_beyond_the_limit(tmp_path, notes, monkeypatch):
    picture = Image.fromarray(quarters())
    picture.save(tmp_path / "a.jpg", quality=95)
    picture.save(tmp_path / "a.png")
    assert corners(read_image(tmp_path / "a.jpg", 16)) == QUARTERS
    monkeypatch.setattr(image_files, "MOST_PIXELS", 255)  # the picture has 256
    with pytest.raises(DataError, match=r"a\.png.*\b16 x 16\b"):
        read_image(tmp_path / "a.png", 16)
    with image_files.open_image(tmp_path / "a.jpg") as image:
        assert image_files.upright_rgb(image, tmp_path / "a.jpg").size == (8, 8)
    assert corners(read_image(tmp_path / "a.jpg", 8)) == QUARTERS


# --- errors and warnings of others ----------------------------------------------------------------


def test_errors_of_our_own_code_are_no_damage(tmp_path, notes, monkeypatch):
    def fail(image, size):
        raise TypeError("our own")

    Image.fromarray(quarters()).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "adm_center_crop", fail)
    with pytest.raises(TypeError, match="our own"):
        read_image(tmp_path / "a.png", 16)
    with (
        pytest.raises(TypeError, match="of the caller"),
        image_files.open_image(tmp_path / "a.png"),
    ):
        raise TypeError("of the caller")


def test_too_little_memory_for_the_crop_names_the_file(tmp_path, notes, monkeypatch):
    def fail(image, size):
        raise MemoryError

    Image.fromarray(quarters()).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "adm_center_crop", fail)
    with pytest.raises(DataError, match=r"a\.png.*memory"):
        read_image(tmp_path / "a.png", 16)


WARNINGS = """
import sys, warnings
from pathlib import Path
from PIL import Image
from pae_framework.data.images import read_image
Image.MAX_IMAGE_PIXELS = 200  # warns from 201 on
for _ in range(3):
    warnings.warn("said once")
    read_image(Path(sys.argv[1]), 16)
"""


def test_warnings_of_pillow_are_silent_and_those_of_others_unaffected(tmp_path):
    Image.fromarray(quarters()).save(tmp_path / "a.png")
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", WARNINGS, str(tmp_path / "a.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("said once") == 1
    assert "DecompressionBomb" not in done.stderr


def test_a_file_is_opened_without_warnings_of_pillow(tmp_path, notes, monkeypatch, caplog):
    Image.fromarray(quarters()).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # warns from 201 on, fails from 401 on
    with caplog.at_level(logging.WARNING):
        assert read_image(tmp_path / "a.png", 16).shape == (3, 16, 16)
    assert not caplog.records
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"a\.png.*\b256 pixels.*\b200\b"):
        read_image(tmp_path / "a.png", 16)
