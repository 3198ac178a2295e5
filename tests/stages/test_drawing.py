"""Which labels `pae sample` draws, and what it leaves in its folder."""

from contextlib import contextmanager
from types import SimpleNamespace

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
def no_progress(total):
    yield SimpleNamespace(update=lambda done: None)


class LabelSampler:
    """Draws images whose every value is ten times the label."""

    def images(self, labels, indices, settings):
        return (10 * labels).byte().view(-1, 1, 1, 1).expand(-1, 3, 4, 4)


@pytest.fixture
def draw(monkeypatch):
    monkeypatch.setattr(drawing, "Sampler", SimpleNamespace(of=lambda context: LabelSampler()))
    context, settings = SimpleNamespace(progress=no_progress), SampleSettings(batch_size=2)
    return lambda labels, folder: draw_to_folder(context, labels, settings, folder)


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
