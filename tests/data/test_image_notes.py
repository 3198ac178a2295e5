"""Notes about image files: the first file at once, the others counted, from every process."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pae_framework.data import image_files, image_notes, read_ahead
from pae_framework.data.image_notes import ImageNotes
from pae_framework.data.images import ImageBatches
from pae_framework.data.stream import CountStream
from pae_framework.plugins import load_registry


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.fixture
def notes() -> ImageNotes:
    return ImageNotes()


def test_the_first_file_is_logged_at_once_and_the_others_are_counted(notes, caplog):
    for name in ("b.png", "a.png", "b.png", "c.png"):
        notes.add("turned", name)
    notes.add("transparent", "b.png")
    assert lines(caplog) == ["b.png: turned", "b.png: transparent"]
    notes.summarize()
    assert lines(caplog)[2:] == ["b.png and 2 other images: turned"]


def test_a_count_is_logged_again_only_if_it_has_grown(notes, caplog):
    notes.add("turned", "a.png")
    notes.add("turned", "b.png")
    notes.summarize()
    notes.add("turned", "b.png")  # the next stage reads it too
    notes.summarize()
    assert lines(caplog) == ["a.png: turned", "a.png and 1 other image: turned"]


def test_the_count_is_limited(notes, caplog, monkeypatch):
    monkeypatch.setattr(image_notes, "MOST", 3)
    for number in range(5):
        notes.add("turned", f"{number}.png")
    notes.summarize()
    assert lines(caplog)[1] == "0.png and 2 or more other images: turned"


def test_a_relaying_process_logs_nothing_and_sends_each_note_once(notes, caplog):
    other = ImageNotes()
    other.add("turned", "known before it relays.png")
    caplog.clear()
    other.relay()
    other.add("turned", "a.png")
    sent = other.take()
    other.summarize()
    assert (sent, other.take(), lines(caplog)) == ({"turned": ["a.png"]}, {}, [])
    notes.update(sent)
    assert lines(caplog) == ["a.png: turned"]


def test_names_are_printable(notes, caplog):
    notes.add("color profile '\x9b2J'", "\x1b[31m.png")
    assert lines(caplog) == ["\\x1b[31m.png: color profile '\\x9b2J'"]


@pytest.mark.parametrize("workers", [0, 2])
def test_one_line_per_note_whatever_the_number_of_workers(
    tmp_path: Path, caplog, monkeypatch, workers
):
    fresh = ImageNotes()
    monkeypatch.setattr(image_files, "NOTES", fresh)
    monkeypatch.setattr(read_ahead, "NOTES", fresh)
    (tmp_path / "one").mkdir()
    for number in range(8):
        levels = np.full((8, 8, 4), 7 if number < 5 else 255, np.uint8)
        Image.fromarray(levels).save(tmp_path / "one" / f"{number}.png")
    spec = load_registry().find("dataset", "image_folder")
    source = spec.component_class()(
        spec.config_class()(folder=str(tmp_path), background="stored"), 8
    )
    stream = CountStream(len(source), batch_size=4, seed=0)
    with caplog.at_level(logging.WARNING):
        for _ in ImageBatches(source, stream, flip=False, workers=workers)(0, 4):
            pass
        fresh.summarize()
    first, count = lines(caplog)
    assert "transparent" in first
    assert "and 4 other images" in count
