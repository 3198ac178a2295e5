"""Processes share the extraction of features of anyone's images."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from stand_in import ColorNetwork, colors

from pae_framework.data.npz import NpzImages
from pae_framework.evaluation import samples
from pae_framework.evaluation.samples import Extraction, SharedExtraction, extract_missing
from pae_framework.launch.ranks import Ranks
from pae_framework.metrics import feature_extraction
from pae_framework.metrics.inception_network import InceptionExtractor
from pae_framework.system.console import PlainConsole

CHUNK, IMAGES = 3, 20


def wait_for_the_other(marks: Path, rank: int, seen: int) -> None:
    """Leave a mark, and wait for that of the other of two processes."""
    (marks / str(rank)).write_text(str(seen))
    deadline = time.monotonic() + 60
    while len(list(marks.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Waiting(ColorNetwork):
    """Processes its first images when the other process has begun, too."""

    def __init__(self, marks: Path, rank: int) -> None:
        super().__init__()
        self.marks, self.rank = marks, rank

    def __call__(self, images):
        found = super().__call__(images)
        wait_for_the_other(self.marks, self.rank, self.seen)
        return found


def extract_with_colors(work: SharedExtraction, marks: Path) -> None:
    """In either process: chunks of three images, mean colors in place of Inception."""
    network = Waiting(marks, work.world.rank)
    with (
        patch.object(feature_extraction, "CHUNK", CHUNK),
        patch.object(samples, "inception_network", lambda weights, device: network),
    ):
        extract_missing(work)


def extract_together(work: SharedExtraction, marks: Path) -> None:
    """In either process: chunks of three images, the first when the other has its first."""

    class Together(InceptionExtractor):
        def __call__(self, images):
            wait_for_the_other(marks, work.world.rank, len(images))
            return super().__call__(images)

    with (
        patch.object(feature_extraction, "CHUNK", CHUNK),
        patch.object(samples, "inception_network", Together),
    ):
        extract_missing(work)


@pytest.fixture
def color_network(monkeypatch):
    network = ColorNetwork()
    monkeypatch.setattr(feature_extraction, "CHUNK", CHUNK)
    monkeypatch.setattr(samples, "inception_network", lambda weights, device: network)
    return network


def test_what_was_extracted_before_is_not_extracted_again(tmp_path, color_network):
    np.savez(tmp_path / "s.npz", colors(IMAGES))
    images, console, cpu = NpzImages(tmp_path / "s.npz"), PlainConsole(), torch.device("cpu")
    extraction = Extraction("none", cpu, tmp_path / "cache", 2, console, extract_missing)
    first = extraction.features(images, images.identity(), "samples")
    assert color_network.seen == IMAGES
    for file in sorted((tmp_path / "cache").glob("*/*.safetensors"))[1:3]:
        file.unlink()
    again = extraction.features(images, images.identity(), "samples")
    assert color_network.seen == IMAGES + 2 * CHUNK
    direct = ColorNetwork()(images.read(range(IMAGES))).pool
    assert torch.equal(first.rows, direct)
    assert torch.equal(again.rows, direct)


@pytest.mark.slow
def test_two_processes_extract_every_image_once(tmp_path, color_network):
    np.savez(tmp_path / "s.npz", colors(IMAGES))
    images, marks, console = NpzImages(tmp_path / "s.npz"), tmp_path / "marks", PlainConsole()
    marks.mkdir()
    with Ranks(2, console) as ranks:

        def share(work):
            ranks.run(work, partial(extract_with_colors, marks=marks), tmp_path / "logs")

        device = torch.device("cpu")
        extraction = Extraction("none", device, tmp_path / "cache", 2, console, share)
        found = extraction.features(images, images.identity(), "samples")
        again = extraction.features(images, images.identity(), "samples")
    seen = [int((marks / rank).read_text()) for rank in ("0", "1")]
    assert min(seen) >= 1
    assert sum(seen) == IMAGES
    assert color_network.seen == 0  # what the main process reads is all there
    direct = ColorNetwork()(images.read(range(IMAGES))).pool
    assert torch.equal(found.rows, direct)
    assert torch.equal(again.rows, direct)


@pytest.mark.slow
def test_the_command_gives_the_same_values_with_two_processes(pae, tmp_path, monkeypatch):
    """With Inception of random weights; either process extracts some of the chunks."""
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setattr(feature_extraction, "CHUNK", CHUNK)
    monkeypatch.setattr(samples, "extract_missing", partial(extract_together, marks=marks))
    np.savez(tmp_path / "s.npz", colors(12))
    np.savez(tmp_path / "r.npz", colors(12, seed=1))
    command = ("evaluate", "--samples", "s.npz", "--reference", "r.npz", "--weights", "none")
    several, one = (
        json.loads(pae(*command, "--json", "--cache", f"cache{n}", "--processes", str(n)).ok().out)
        for n in (2, 1)
    )
    assert {mark.name for mark in marks.iterdir()} == {"0", "1"}
    values = [{m["label"]: m["value"] for m in card["metrics"]} for card in (several, one)]
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    assert values[0]
