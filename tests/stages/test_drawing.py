"""Which labels `pae sample` draws, and what it leaves in its folder."""

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from drawn_run import DrawnRun
from PIL import Image

from pae_framework.errors import DataError, UsageError
from pae_framework.files import read_json
from pae_framework.flow.flow_settings import Guidance, SampleSettings
from pae_framework.flow.sampling import EvaluationCount
from pae_framework.sampling import sample_set as image_sets
from pae_framework.sampling import sample_to_folder as drawing
from pae_framework.sampling.sample_to_folder import choose_labels, draw_to_folder

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


class LabelSampler:
    """Draws images whose every value is ten times the label; stops when told to."""

    asked: ClassVar[list[int]] = []
    stop_at: ClassVar[int | None] = None
    recipes: ClassVar[list] = []

    def __init__(self, context):
        self.count = EvaluationCount()
        self.recipes.append(context.recipe)

    def images(self, labels, indices, settings):
        if self.stop_at in indices.tolist():
            raise KeyboardInterrupt
        self.asked.extend(indices.tolist())
        self.count.add(len(labels), 20, 10)
        return (10 * labels).byte().view(-1, 1, 1, 1).expand(-1, 3, 4, 4)


@pytest.fixture
def draw(monkeypatch, tmp_path_factory):
    monkeypatch.setattr(drawing, "Sampler", SimpleNamespace(of=LabelSampler))
    monkeypatch.setattr(drawing, "guiding_fault", lambda recipe, registry: None)
    LabelSampler.asked.clear()
    LabelSampler.recipes.clear()
    LabelSampler.stop_at = None
    store = tmp_path_factory.mktemp("run")

    def draw(labels, folder, fingerprint="a", npz=False, **settings):
        context = DrawnRun(store, fingerprint)
        draw_to_folder(context, labels, SampleSettings(batch_size=2, **settings), folder, npz)

    draw.store = store
    return draw


def npz_values(folder):
    """One value of each image of the npz, and its labels."""
    with np.load(folder / "images.npz") as file:
        return file["arr_0"][:, 0, 0, 0].tolist(), file["arr_1"].tolist()


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


@pytest.mark.parametrize("file", ["generator/weights", "tokenizer/tokenizer"])
def test_what_other_weights_drew_is_drawn_again(draw, tmp_path, file):
    draw([0, 1], tmp_path)
    (draw.store / f"{file}.safetensors").write_text("trained again")
    draw([0, 1], tmp_path)
    assert LabelSampler.asked == [0, 1, 0, 1]


def test_what_another_weak_network_guided_is_drawn_again(draw, tmp_path):
    weights = tmp_path / "weak" / "generator" / "weights.safetensors"
    weights.parent.mkdir(parents=True)
    guidance = Guidance(scale=2, autoguidance=str(tmp_path / "weak"))
    for content in ("one", "two", "two"):
        weights.write_text(content)
        draw([0, 1], tmp_path / "drawn", guidance=guidance)
    assert LabelSampler.asked == [0, 1, 0, 1]


def test_the_network_that_guides_is_that_of_the_settings(draw, tmp_path):
    """The recipe's may name a run although the command line asks for no guidance."""
    draw([0], tmp_path)
    (recipe,) = LabelSampler.recipes
    assert recipe.sample.guidance == Guidance()


def test_a_run_that_cannot_guide_is_refused_before_anything_is_removed(draw, tmp_path, monkeypatch):
    draw([0, 1], tmp_path)
    monkeypatch.setattr(drawing, "guiding_fault", lambda recipe, registry: "it is not finished")
    with pytest.raises(UsageError, match="it is not finished"):
        draw([0], tmp_path, guidance=Guidance(scale=2, autoguidance="weak"))
    assert (tmp_path / "000001.png").is_file()


@pytest.mark.parametrize("damage", ["cut", "emptied", "changed"])
def test_a_damaged_image_is_drawn_again(draw, tmp_path, damage):
    draw([0, 1, 2], tmp_path)
    path = tmp_path / "000001.png"
    whole = path.read_bytes()
    middle = whole.index(b"IDAT") + 8
    damaged = {
        "cut": whole[:middle],
        "emptied": b"",
        "changed": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
    }
    path.write_bytes(damaged[damage])
    draw([0, 1, 2], tmp_path)
    assert LabelSampler.asked == [0, 1, 2, 1]
    assert path.read_bytes() == whole


def test_an_image_damaged_meanwhile_is_named(draw, tmp_path, monkeypatch):
    draw([0, 1], tmp_path)
    (tmp_path / "000001.png").write_bytes(b"")
    monkeypatch.setattr(drawing, "_is_readable", lambda path: True)
    with pytest.raises(DataError, match=r"000001\.png cannot be read"):
        draw([0, 1], tmp_path)


def test_the_record_says_what_dopri5_took(draw, tmp_path):
    settings = {"solver": "dopri5", "guidance": Guidance(scale=2)}
    LabelSampler.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        draw([0, 1, 2], tmp_path, **settings)
    assert "evaluations" not in read_json(tmp_path / "drawn.json")
    LabelSampler.stop_at = None
    for _ in range(2):
        draw([0, 1, 2], tmp_path, **settings)
        found = read_json(tmp_path / "drawn.json")["found"]
        assert found == {"images_counted": 1, "evaluations": 20, "guided_evaluations": 10}
    assert LabelSampler.asked == [0, 1, 2]


# --- all images in one file -----------------------------------------------------------------------


def test_an_npz_holds_the_images_of_the_files(draw, tmp_path):
    draw([2, 0, 1], tmp_path, npz=True)
    assert npz_values(tmp_path) == ([20, 0, 10], [2, 0, 1])
    with np.load(tmp_path / "images.npz") as file:
        assert file["arr_0"].shape == (3, 4, 4, 3)
    draw([2, 0], tmp_path)
    assert not (tmp_path / "images.npz").exists()  # it would hold what is not there any more


def test_a_finished_npz_stays_where_the_same_is_drawn_without(draw, tmp_path):
    draw([2, 0, 1], tmp_path, npz=True)
    before = (tmp_path / "images.npz").stat()
    draw([2, 0, 1], tmp_path)
    draw([2, 0, 1], tmp_path, npz=True)
    after = (tmp_path / "images.npz").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert LabelSampler.asked == [0, 1, 2]
    draw([1], tmp_path)
    assert not (tmp_path / "images.npz").exists()


def test_an_npz_of_someone_else_is_neither_removed_nor_overwritten(draw, tmp_path):
    foreign = tmp_path / "images.npz"
    foreign.write_text("mine")
    draw([2, 0, 1], tmp_path)
    draw([2, 0], tmp_path)
    with pytest.raises(UsageError, match=r"images\.npz was not written by `pae sample`"):
        draw([2, 0], tmp_path, npz=True)
    assert foreign.read_text() == "mine"


def interrupted(draw, labels, folder, monkeypatch):
    """Draw until all parts of the npz are there, but not the npz."""

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(image_sets, "_join", interrupt)
        with pytest.raises(KeyboardInterrupt):
            draw(labels, folder, npz=True)


@pytest.mark.parametrize("first", [[2, 2, 2, 2, 2], [2, 2, 2, 2]])
def test_an_interrupted_npz_does_not_leak_into_the_next(draw, tmp_path, monkeypatch, first):
    """Whole parts of the first are there when three other images are asked for."""
    monkeypatch.setattr(image_sets, "PART", 2)
    interrupted(draw, first, tmp_path, monkeypatch)
    assert (tmp_path / "images.parts" / "00000002.npy").is_file()
    draw([0, 1, 0], tmp_path, npz=True)
    assert npz_values(tmp_path) == ([0, 10, 0], [0, 1, 0])


def test_parts_of_an_interrupted_npz_go_with_its_images(draw, tmp_path, monkeypatch):
    interrupted(draw, [0, 1], tmp_path, monkeypatch)
    assert (tmp_path / "images.parts").is_dir()
    draw([1, 1], tmp_path)
    assert not (tmp_path / "images.parts").exists()


@pytest.mark.parametrize(("npz", "reads"), [(False, [64]), (True, [64, *[2] * 75])])
def test_images_are_read_back_a_grid_or_a_batch_at_a_time(draw, tmp_path, monkeypatch, npz, reads):
    held, stack = [], torch.stack
    monkeypatch.setattr(torch, "stack", lambda images: held.append(len(images)) or stack(images))
    draw([0] * 150, tmp_path, npz=npz)
    assert held == reads
