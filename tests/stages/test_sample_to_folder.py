"""Which labels `pae sample` samples, and what it leaves in its folder."""

import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from PIL import Image
from sampled_run import SampledRun

from pae_framework.errors import DataError, UsageError, WriteError
from pae_framework.flow.flow_settings import Guidance, SampleSettings
from pae_framework.flow.sampling import EvaluationCount
from pae_framework.report.pictures import save_png
from pae_framework.sampling.sample_set import prepare_chunks, write_chunk
from pae_framework.sampling.sample_to_folder import choose_labels, drawn_classes, sample_to_folder
from pae_framework.system.files import read_json

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


@pytest.mark.parametrize(
    ("names", "text", "chosen"),
    [
        (["0", "1", "10", "11", "2"], "2", [4]),  # the class called 2
        (["0", "1", "10", "11", "2"], "#2", [2]),
        (["0", "1", "10", "11", "2"], "4,#4,10", [4, 4, 2]),
        (["#1", "x"], "#1,#0", [1, 0]),  # a number after # is always an index
        (["hen, cock", "ox", " hen"], "hen, cock,ox, hen", [0, 1, 2]),
        (["a", "a,b", "b"], "a,b,b,a", [1, 2, 0]),
        (["a"], "#00", [0]),
    ],
)
def test_names_come_before_numbers_and_numbers_may_be_marked(names, text, chosen):
    assert choose_labels(text, None, names) == chosen


@pytest.mark.parametrize("word", ["#3", "#-1", "#", "#ant", "##1", "1.0", "\u0661", "9" * 5000])
def test_what_is_neither_a_name_nor_an_index_is_refused(word):
    with pytest.raises(UsageError, match="there is no class"):
        choose_labels(word, None, NAMES)


def test_the_classes_that_are_drawn_are_named_with_index_and_count():
    assert drawn_classes([2, 1, 2], NAMES) == "cat (#2) x 2, bee (#1) x 1"
    many = drawn_classes(list(range(1000)), [f"class {label}" for label in range(1000)])
    assert "class 0 (#0)" in many
    assert len(many) < 300


def test_without_labels_and_count_all_classes_come_in_turn_64_times():
    assert choose_labels(None, None, NAMES) == [index % 3 for index in range(64)]


def test_fewer_images_than_labels_are_refused():
    with pytest.raises(UsageError) as refused:
        choose_labels("0,2", 1, NAMES)
    assert "--count 1" in str(refused.value)
    assert "2 labels" in str(refused.value)


@pytest.mark.parametrize("word", ["3", "owl", "-1", ""])
def test_a_label_that_the_data_do_not_have_is_refused(word):
    with pytest.raises(UsageError) as refused:
        choose_labels(f"1,{word}", None, NAMES)
    for fact in ("--labels", repr(word), "0 to 2", *NAMES):
        assert fact in str(refused.value)


@dataclass
class LabelSampler:
    """Samples images whose every value is ten times the label; stops when told to."""

    asked: list[int] = field(default_factory=list)
    stop_at: int | None = None
    recipes: list = field(default_factory=list)
    count: EvaluationCount = field(default_factory=EvaluationCount)

    def of(self, context):
        self.count = EvaluationCount()
        self.recipes.append(context.recipe)
        return self

    def images(self, labels, indices, settings):
        if self.stop_at in indices.tolist():
            raise KeyboardInterrupt
        self.asked.extend(indices.tolist())
        self.count.add(len(labels), 20, 10)
        return (10 * labels).byte().view(-1, 1, 1, 1).expand(-1, 3, 4, 4)


class Sampling:
    """Samples into a folder, from one run."""

    def __init__(self, store):
        self.store, self.sampler = store, LabelSampler()

    def __call__(self, labels, folder, fingerprint="a", npz=False, **settings):
        settings = SampleSettings(batch_size=2, **settings)
        context = SampledRun(self.store, fingerprint)
        sample_to_folder(context, labels, settings, folder, npz, self.sampler.of)


@pytest.fixture
def sample(tmp_path_factory):
    return Sampling(tmp_path_factory.mktemp("run"))


def npz_values(folder):
    """One value of each image of the npz, and its labels."""
    with np.load(folder / "images.npz") as file:
        return file["arr_0"][:, 0, 0, 0].tolist(), file["arr_1"].tolist()


def test_each_image_is_a_file_and_the_record_says_what_was_sampled(sample, tmp_path):
    sample([2, 0, 1], tmp_path / "drawn")

    for name, label in (("000000", 2), ("000001", 0), ("000002", 1)):
        image = Image.open(tmp_path / "drawn" / f"{name}.png").convert("RGB")
        assert image.size == (4, 4)
        assert image.getpixel((0, 0)) == (10 * label,) * 3
    record = read_json(tmp_path / "drawn" / "drawn.json")
    assert record["labels"] == [2, 0, 1]
    assert record["solver"] == SampleSettings().solver
    assert (tmp_path / "drawn" / "grid.png").is_file()


def test_sampling_fewer_into_the_same_folder_leaves_none_of_before(sample, tmp_path):
    sample([0] * 5, tmp_path)
    for name in ("000009.png", "mine.png"):
        (tmp_path / name).touch()
    sample([1, 1], tmp_path)

    left = {path.name for path in tmp_path.glob("*.png")}
    assert left == {"000000.png", "000001.png", "grid.png", "000009.png", "mine.png"}


def test_an_interrupted_call_resumes(sample, tmp_path):
    sample.sampler.stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        sample([0, 1, 2, 0, 1], tmp_path)
    assert sample.sampler.asked == [0, 1]
    sample.sampler.stop_at = None
    sample([0, 1, 2, 0, 1], tmp_path)
    assert sample.sampler.asked == [0, 1, 2, 3, 4]
    sample([0, 1, 2, 0, 1], tmp_path)
    assert sample.sampler.asked == [0, 1, 2, 3, 4]  # all there


def test_images_are_written_while_the_next_ones_are_sampled(sample, tmp_path, monkeypatch):
    sampled = threading.Event()

    def save(picture, path):
        assert sampled.wait(30)
        save_png(picture, path)

    def images(labels, indices, settings):
        if 2 in indices:
            sampled.set()
        return (10 * labels).byte().view(-1, 1, 1, 1).expand(-1, 3, 4, 4)

    monkeypatch.setattr("pae_framework.sampling.sample_to_folder.save_png", save)
    monkeypatch.setattr(sample.sampler, "images", images)
    sample([0, 1, 2, 0], tmp_path)
    assert len(list(tmp_path.glob("0*.png"))) == 4


@pytest.mark.parametrize("failing", ["000001.png", "000004.png"])
def test_an_image_that_cannot_be_written_stops_the_command(sample, tmp_path, failing):
    (tmp_path / failing).mkdir()
    with pytest.raises(WriteError) as raised:
        sample([0] * 5, tmp_path)
    assert failing in str(raised.value)


def test_no_more_images_than_are_asked_for_are_sampled_at_once(sample, tmp_path):
    """A compiled network would fill up the batch."""
    sample([0], tmp_path)
    assert sample.sampler.recipes[0].sample.batch_size == 1


@pytest.mark.parametrize("change", [{"fingerprint": "b"}, {"steps": 3}, {"seed": 1}])
def test_what_was_sampled_otherwise_is_sampled_again(sample, tmp_path, change):
    sample([0, 1], tmp_path)
    sample([0, 1], tmp_path, **change)
    assert sample.sampler.asked == [0, 1, 0, 1]


@pytest.mark.parametrize("file", ["generator/weights", "tokenizer/tokenizer"])
def test_what_other_weights_sampled_is_sampled_again(sample, tmp_path, file):
    sample([0, 1], tmp_path)
    (sample.store / f"{file}.safetensors").write_text("trained again")
    sample([0, 1], tmp_path)
    assert sample.sampler.asked == [0, 1, 0, 1]


def test_what_another_weak_network_guided_is_sampled_again(sample, tmp_path):
    weights = tmp_path / "weak" / "generator" / "weights.safetensors"
    weights.parent.mkdir(parents=True)
    guidance = Guidance(scale=2, autoguidance=str(tmp_path / "weak"))
    for content in ("one", "two", "two"):
        weights.write_text(content)
        sample([0, 1], tmp_path / "drawn", guidance=guidance)
    assert sample.sampler.asked == [0, 1, 0, 1]


def test_the_network_that_guides_is_that_of_the_settings(sample, tmp_path):
    """The recipe's may name a run although the command line asks for no guidance."""
    sample([0], tmp_path)
    (recipe,) = sample.sampler.recipes
    assert recipe.sample.guidance == Guidance()


@pytest.mark.parametrize("damage", ["cut", "emptied", "changed"])
def test_a_damaged_image_is_sampled_again(sample, tmp_path, damage):
    sample([0, 1, 2], tmp_path)
    path = tmp_path / "000001.png"
    whole = path.read_bytes()
    middle = whole.index(b"IDAT") + 8
    damaged = {
        "cut": whole[:middle],
        "emptied": b"",
        "changed": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
    }
    path.write_bytes(damaged[damage])
    sample([0, 1, 2], tmp_path)
    assert sample.sampler.asked == [0, 1, 2, 1]
    assert path.read_bytes() == whole


def test_an_image_damaged_while_others_are_sampled_is_named(sample, tmp_path):
    sample([0, 1], tmp_path)
    (tmp_path / "000000.png").unlink()
    images = sample.sampler.images

    def damaging(*arguments):
        (tmp_path / "000001.png").write_bytes(b"")
        return images(*arguments)

    sample.sampler.images = damaging
    with pytest.raises(DataError) as refused:
        sample([0, 1], tmp_path)
    assert str(tmp_path / "000001.png") in str(refused.value)


def test_the_record_says_what_dopri5_took(sample, tmp_path):
    settings = {"solver": "dopri5", "guidance": Guidance(scale=2)}
    sample.sampler.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        sample([0, 1, 2], tmp_path, **settings)
    assert "evaluations" not in read_json(tmp_path / "drawn.json")
    sample.sampler.stop_at = None
    for _ in range(2):
        sample([0, 1, 2], tmp_path, **settings)
        found = read_json(tmp_path / "drawn.json")["found"]
        assert found == {"images_counted": 1, "evaluations": 20, "guided_evaluations": 10}
    assert sample.sampler.asked == [0, 1, 2]


# --- all images in one file -----------------------------------------------------------------------


def test_an_npz_holds_the_images_of_the_files(sample, tmp_path):
    sample([2, 0, 1], tmp_path, npz=True)
    assert npz_values(tmp_path) == ([20, 0, 10], [2, 0, 1])
    with np.load(tmp_path / "images.npz") as file:
        assert file["arr_0"].shape == (3, 4, 4, 3)
    sample([2, 0], tmp_path)
    assert not (tmp_path / "images.npz").exists()  # it would hold what is not there any more


def test_a_finished_npz_stays_if_the_same_is_sampled_without(sample, tmp_path):
    sample([2, 0, 1], tmp_path, npz=True)
    before = (tmp_path / "images.npz").stat()
    sample([2, 0, 1], tmp_path)
    sample([2, 0, 1], tmp_path, npz=True)
    after = (tmp_path / "images.npz").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sample.sampler.asked == [0, 1, 2]
    sample([1], tmp_path)
    assert not (tmp_path / "images.npz").exists()


def test_an_npz_of_someone_else_is_neither_removed_nor_overwritten(sample, tmp_path):
    foreign = tmp_path / "images.npz"
    foreign.write_text("mine")
    sample([2, 0, 1], tmp_path)
    sample([2, 0], tmp_path)
    with pytest.raises(UsageError) as refused:
        sample([2, 0], tmp_path, npz=True)
    for fact in (str(foreign), "`pae sample`", "--out"):
        assert fact in str(refused.value)
    assert foreign.read_text() == "mine"


def interrupted(sample, labels, folder, chunk_size=1000):
    """As after an interruption when all chunks of the npz are there, but not the npz."""
    sample(labels, folder)
    identity = read_json(folder / "drawn.json")["identity"]
    levels = (10 * torch.tensor(labels)).byte()
    for chunk in prepare_chunks(folder / "images.npz", len(labels), identity, chunk_size):
        list(
            write_chunk(
                folder / "images.npz",
                chunk,
                lambda indices: levels[indices].view(-1, 1, 1, 1).expand(-1, 3, 4, 4),
                len(labels),
            )
        )


@pytest.mark.parametrize("first", [[2, 2, 2, 2, 2], [2, 2, 2, 2]])
def test_an_interrupted_npz_does_not_leak_into_the_next(sample, tmp_path, first):
    """Complete chunks of the first are there when three other images are asked for."""
    interrupted(sample, first, tmp_path, chunk_size=2)
    assert (tmp_path / "images.parts" / "00000002.npy").is_file()
    sample([0, 1, 0], tmp_path, npz=True)
    assert npz_values(tmp_path) == ([0, 10, 0], [0, 1, 0])


def test_an_interrupted_npz_is_joined_from_its_chunks(sample, tmp_path):
    interrupted(sample, [0, 1], tmp_path)
    sample([0, 1], tmp_path, npz=True)
    assert npz_values(tmp_path) == ([0, 10], [0, 1])
    assert not (tmp_path / "images.parts").exists()


def test_chunks_of_an_interrupted_npz_go_with_its_images(sample, tmp_path):
    interrupted(sample, [0, 1], tmp_path)
    assert (tmp_path / "images.parts").is_dir()
    sample([1, 1], tmp_path)
    assert not (tmp_path / "images.parts").exists()


@pytest.mark.parametrize(("npz", "reads"), [(False, [64]), (True, [64, *[2] * 75])])
def test_images_are_read_back_a_grid_or_a_batch_at_a_time(
    sample, tmp_path, monkeypatch, npz, reads
):
    held, stack = [], torch.stack
    monkeypatch.setattr(torch, "stack", lambda images: held.append(len(images)) or stack(images))
    sample([0] * 150, tmp_path, npz=npz)
    assert held == reads
