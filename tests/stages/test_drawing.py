"""Which labels `pae sample` draws, and what it leaves in its folder."""

from contextlib import contextmanager
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from pae_framework.errors import UsageError
from pae_framework.files import read_json
from pae_framework.settings import SampleSettings
from pae_framework.stages import drawing
from pae_framework.stages.drawing import choose_labels, draw_to_folder

NAMES = ["ant", "bee", "cat"]


@pytest.mark.parametrize(
    ("text", "count", "chosen"),
    [
        ("2,bee", None, [2, 1]),
        ("2,bee", 5, [2, 1, 2, 1, 2]),
        ("2, 1", 2, [2, 1]),
        (None, 4, [0, 1, 2, 0]),
        (None, 2, [0, 1]),  # no label was asked for, so none is left out
    ],
)
def test_labels_come_in_turn(text, count, chosen):
    assert choose_labels(text, count, NAMES) == chosen


def test_without_labels_and_count_all_classes_come_in_turn_64_times():
    assert choose_labels(None, None, NAMES) == [index % 3 for index in range(64)]


def test_fewer_images_than_labels_are_refused():
    with pytest.raises(UsageError, match="--count 1 is less than the 2 labels given"):
        choose_labels("0,2", 1, NAMES)


@pytest.mark.parametrize("word", ["3", "owl", "-1", ""])
def test_a_label_that_the_data_do_not_have_is_refused(word):
    with pytest.raises(UsageError, match="classes are 0 to 2"):
        choose_labels(f"1,{word}", None, NAMES)


@contextmanager
def no_progress(total, done):
    yield SimpleNamespace(update=lambda done, note: None)


class LabelSampler:
    """Draws images whose every value is ten times the label; stops when told to."""

    asked: ClassVar[list[int]] = []
    stop_at: ClassVar[int | None] = None

    def images(self, labels, indices, settings):
        if self.stop_at in indices.tolist():
            raise KeyboardInterrupt
        self.asked.extend(indices.tolist())
        return (10 * labels).byte().view(-1, 1, 1, 1).expand(-1, 3, 4, 4)


@pytest.fixture
def draw(monkeypatch):
    monkeypatch.setattr(drawing, "Sampler", SimpleNamespace(of=lambda context: LabelSampler()))
    LabelSampler.asked.clear()
    LabelSampler.stop_at = None

    def draw(labels, folder, fingerprint="a", npz=False, **settings):
        plan = {"generator": SimpleNamespace(fingerprint=fingerprint)}
        context = SimpleNamespace(progress=no_progress, plan=plan)
        draw_to_folder(context, labels, SampleSettings(batch_size=2, **settings), folder, npz)

    return draw


def test_each_image_is_a_file_and_the_record_says_what_was_drawn(draw, tmp_path):
    draw([2, 0, 1], tmp_path / "drawn")

    for name, label in (("000000", 2), ("000001", 0), ("000002", 1)):
        image = Image.open(tmp_path / "drawn" / f"{name}.png").convert("RGB")
        assert image.size == (4, 4)
        assert image.getpixel((0, 0)) == (10 * label,) * 3
    record = read_json(tmp_path / "drawn" / "drawn.json")
    assert record["labels"] == [2, 0, 1]
    assert record["solver"] == SampleSettings().solver
    assert (tmp_path / "drawn" / "grid.png").is_file()


def test_drawing_fewer_into_the_same_folder_leaves_none_of_before(draw, tmp_path):
    draw([0] * 5, tmp_path)
    for name in ("000009.png", "mine.png"):
        (tmp_path / name).touch()
    draw([1, 1], tmp_path)

    left = {path.name for path in tmp_path.glob("*.png")}
    assert left == {"000000.png", "000001.png", "grid.png", "000009.png", "mine.png"}


def test_an_interrupted_drawing_goes_on_where_it_was(draw, tmp_path):
    LabelSampler.stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        draw([0, 1, 2, 0, 1], tmp_path)
    assert LabelSampler.asked == [0, 1]
    LabelSampler.stop_at = None
    draw([0, 1, 2, 0, 1], tmp_path)
    assert LabelSampler.asked == [0, 1, 2, 3, 4]
    draw([0, 1, 2, 0, 1], tmp_path)
    assert LabelSampler.asked == [0, 1, 2, 3, 4]  # all there


@pytest.mark.parametrize("change", [{"fingerprint": "b"}, {"steps": 3}, {"seed": 1}])
def test_what_was_drawn_otherwise_is_drawn_again(draw, tmp_path, change):
    draw([0, 1], tmp_path)
    draw([0, 1], tmp_path, **change)
    assert LabelSampler.asked == [0, 1, 0, 1]


def test_an_npz_holds_the_images_of_the_files(draw, tmp_path):
    draw([2, 0, 1], tmp_path, npz=True)
    with np.load(tmp_path / "images.npz") as file:
        assert file["arr_0"][:, 0, 0, 0].tolist() == [20, 0, 10]
        assert file["arr_0"].shape == (3, 4, 4, 3)
        assert file["arr_1"].tolist() == [2, 0, 1]
    draw([2, 0], tmp_path)
    assert not (tmp_path / "images.npz").exists()  # it would hold what is not there any more
