"""Reading steps in worker processes: errors are those of the main process."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pae_framework.contracts import DataSource
from pae_framework.data.damaged import SkippingSource
from pae_framework.data.images import ImageBatches
from pae_framework.data.read_ahead import read_steps
from pae_framework.data.stream import CountStream
from pae_framework.errors import DataError, PaeError
from pae_framework.plugins import load_registry


@pytest.fixture
def source(tmp_path: Path) -> DataSource:
    """Eight images of one class, of which the third and the sixth are damaged."""
    folder = tmp_path / "images" / "only"
    folder.mkdir(parents=True)
    for place in range(8):
        Image.fromarray(np.full((8, 8, 3), 10 * place, np.uint8)).save(folder / f"{place}.png")
    for place in (2, 5):
        (folder / f"{place}.png").write_bytes(b"no image")
    spec = load_registry().find("dataset", "image_folder")
    return spec.component_class()(spec.config_class()(folder=str(folder.parent)), 8)


def in_order(source: DataSource) -> ImageBatches:
    stream = CountStream(len(source), batch_size=2, seed=0, shuffle=False)
    return ImageBatches(source, stream, flip=False, workers=2)


def one_line(error: PaeError) -> str:
    """The message, which must not contain the traceback that torch adds."""
    (line,) = str(error).splitlines()
    assert "worker" not in line
    return line


def test_an_unreadable_image_in_a_worker_is_a_one_line_error(source: DataSource) -> None:
    batches = in_order(source)(0, 4)
    images, _ = next(batches)
    assert (images[:, 0, 0, 0] * 255).round().tolist() == [0, 10]
    with pytest.raises(DataError) as caught:
        next(batches)
    assert "2.png" in one_line(caught.value)


def test_exceeding_the_limit_of_damaged_images_in_a_worker_is_a_one_line_error(
    source: DataSource, tmp_path: Path
) -> None:
    batches = in_order(SkippingSource(source, tmp_path / "damaged.txt", limit=1))
    with pytest.raises(DataError) as caught:
        list(batches(0, 4))
    assert re.search(r"\b2 .*data\.max_damaged is 1\b", one_line(caught.value))


def _divide(step: int) -> float:
    return 1 / step


def test_other_errors_of_a_worker_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError, match=r"(?s)in DataLoader worker.*in _divide"):
        list(read_steps(_divide, 0, 2, workers=1))
