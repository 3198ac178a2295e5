"""Files of evaluators on a page: which, with what caption, how much of them, and if unreadable."""

import base64
import io
import json
from functools import cache

import pytest
import torch
from PIL import Image

from pae_framework.report.attachments import SHOWN_ROWS, attachable, read_attachments


def read(folder):
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    files = {name: folder / name for name in attachable(names)}
    return read_attachments({"own": files}).get("own", [])


def decoded(attachment):
    content = base64.b64decode(attachment.picture.partition(";base64,")[2])
    return Image.open(io.BytesIO(content))


@cache
def noise(width, height):
    pixels = torch.randint(256, (height, width, 3), generator=torch.Generator().manual_seed(0))
    return Image.fromarray(pixels.to(torch.uint8).numpy())


def test_pictures_come_first_and_other_files_are_left_out():
    names = ["own/t.csv", "own/b.PNG", "own/deep/a.jpeg", "own/c.webp", "own/u.jsonl"]
    others = ["own/metrics.json", "own/weights.safetensors", "own/a.svg", "own/b.txt", "own/png"]
    assert attachable([*others, *names]) == [
        *("own/b.PNG", "own/c.webp", "own/deep/a.jpeg", "own/t.csv", "own/u.jsonl"),
    ]


MODES = {
    "png": ("RGB", "L", "RGBA", "P", "1", "LA"),
    "PNG": ("RGB",),
    "jpg": ("RGB", "L", "CMYK"),
    "jpeg": ("RGB",),
    "webp": ("RGB", "L", "RGBA"),
}


@pytest.mark.parametrize(
    ("suffix", "mode"), [(suffix, mode) for suffix, modes in MODES.items() for mode in modes]
)
def test_pictures_of_every_kind_are_shown(tmp_path, suffix, mode):
    noise(20, 10).convert(mode).save(tmp_path / f"a.{suffix}")
    (attachment,) = read(tmp_path)
    assert decoded(attachment).size == (20, 10)


def test_small_pictures_keep_every_pixel(tmp_path):
    picture = Image.new("RGB", (300, 200), (10, 200, 30))
    picture.putpixel((7, 9), (255, 0, 1))
    picture.save(tmp_path / "flat.png")
    (attachment,) = read(tmp_path)
    assert decoded(attachment).convert("RGB").tobytes() == picture.tobytes()


def test_large_pictures_are_reduced_in_proportion_and_all_together_limited(tmp_path):
    for number in range(4):
        noise(1600, 800).save(tmp_path / f"{number}.png", compress_level=0)
    attachments = read(tmp_path)
    shown = [attachment for attachment in attachments if attachment.picture]
    assert shown
    for attachment in shown:
        width, height = decoded(attachment).size
        assert width <= 1400
        assert width == pytest.approx(2 * height, abs=2)
    assert sum(len(attachment.picture) for attachment in attachments) <= 1_000_000
    # what no longer fits is named
    left_out = [attachment for attachment in attachments if not attachment.picture]
    assert left_out
    assert all("not shown" in attachment.note for attachment in left_out)
    assert [attachment.name for attachment in attachments] == [f"{n}.png" for n in range(4)]


def test_the_limit_holds_for_all_evaluators_together(tmp_path):
    for label in "abc":
        (tmp_path / label).mkdir()
        for number in range(2):
            noise(1600, 800).save(tmp_path / label / f"{number}.png", compress_level=0)
    found = read_attachments(
        {label: {path.name: path for path in (tmp_path / label).iterdir()} for label in "abc"}
    )
    assert {label: len(files) for label, files in found.items()} == {"a": 2, "b": 2, "c": 2}
    assert sum(len(file.picture) for files in found.values() for file in files) <= 1_000_000


def test_captions_are_the_file_name_or_the_text_beside_it(tmp_path):
    for name in ("worst_ones.png", "plain-one.png", "blank.png"):
        noise(4, 4).save(tmp_path / name)
    (tmp_path / "worst_ones.txt").write_text("The worst\nones <b>.\n", encoding="utf-8")
    (tmp_path / "blank.txt").write_text(" \n", encoding="utf-8")
    captions = {attachment.name: attachment.caption for attachment in read(tmp_path)}
    assert captions == {
        "worst_ones.png": "The worst ones <b>.",
        "plain-one.png": "plain one",
        "blank.png": "blank",
    }


def test_a_csv_table_by_hand(tmp_path):
    (tmp_path / "t.csv").write_text('name,value\n"a,b",1\n\nc\n', encoding="utf-8")
    (table,) = read(tmp_path)
    assert table.heading == ["name", "value"]
    assert table.rows == [["a,b", "1"], ["c"]]
    assert table.note == ""


def test_a_jsonl_table_has_the_keys_of_all_rows_as_columns(tmp_path):
    rows = [{"a": 1, "b": None}, {"c": [1, 2], "a": 0.5}, 7]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "t.jsonl").write_text(text, encoding="utf-8")
    (table,) = read(tmp_path)
    assert table.heading == ["a", "b", "c", "value"]
    assert table.rows == [["1", "none", "", ""], ["0.5", "", "1, 2", ""], ["", "", "", "7"]]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_long_tables_are_cut_and_say_of_how_many_rows(tmp_path, kind):
    lines = [f"{i}" for i in range(1500)]
    text = "\n".join(["x", *lines] if kind == "csv" else lines)
    (tmp_path / f"t.{kind}").write_text(text, encoding="utf-8")
    (table,) = read(tmp_path)
    assert [row[0] for row in table.rows] == lines[:SHOWN_ROWS]
    assert f"{SHOWN_ROWS} of 1,500 rows" in table.note


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_of_huge_tables_only_the_beginning_is_read(tmp_path, kind):
    (tmp_path / f"t.{kind}").write_text("12345678\n" * 200_000, encoding="utf-8")
    (table,) = read(tmp_path)
    assert len(table.rows) == SHOWN_ROWS
    assert "more than" in table.note


def test_wide_tables_and_long_cells_are_cut(tmp_path):
    heading = ",".join(f"c{i}" for i in range(30))
    (tmp_path / "t.csv").write_text(f"{heading}\n{'y' * 500}\n", encoding="utf-8")
    (table,) = read(tmp_path)
    assert table.heading == [f"c{i}" for i in range(12)]
    assert "12 of 30 columns" in table.note
    assert len(table.rows[0][0]) == 80


DAMAGED = {
    "empty.png": b"",
    "text.png": b"not a picture",
    "half.png": None,
    "text.jsonl": b"{not json}\n",
    "half.jsonl": b'{"a": 1}\n{"a"',
    "zeros.webp": bytes(100),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_unreadable_files_are_named_with_the_reason(tmp_path, name):
    content = DAMAGED[name]
    if content is None:
        buffer = io.BytesIO()
        noise(64, 64).save(buffer, format="PNG")
        content = buffer.getvalue()[:2000]
    (tmp_path / name).write_bytes(content)
    noise(4, 4).save(tmp_path / "good.png")
    by_name = {attachment.name: attachment for attachment in read(tmp_path)}
    assert not by_name[name].picture
    assert not by_name[name].heading
    assert by_name[name].note.startswith("not shown: ")
    assert by_name["good.png"].picture


def test_pixels_of_16_bits_are_refused_rather_than_clipped(tmp_path):
    Image.new("I;16", (4, 4), 40_000).save(tmp_path / "deep.png")
    (attachment,) = read(tmp_path)
    assert "I;16" in attachment.note


def test_bytes_that_are_not_utf8_and_an_empty_table(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"caf\xe9\n1\n")
    (tmp_path / "u.csv").write_bytes(b"")
    table, empty = read(tmp_path)
    assert table.heading == ["caf\N{REPLACEMENT CHARACTER}"]
    assert (empty.heading, empty.rows, empty.note) == ([], [], "")


def test_no_more_than_forty_files_are_read(tmp_path):
    for number in range(43):
        noise(2, 2).save(tmp_path / f"{number:02d}.png")
    attachments = read(tmp_path)
    assert len(attachments) == 43
    assert [bool(attachment.picture) for attachment in attachments] == [True] * 40 + [False] * 3
