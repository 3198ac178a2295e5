"""Images that change between stages, between runs and during a stage, in all stages of a recipe.

The stages only read their images, so a whole run takes a second.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from pae_framework.data import contents
from pae_framework.errors import DataError, PaeError, RunError
from pae_framework.execution.context import StageContext
from pae_framework.launch.local import LocalLauncher
from pae_framework.plugins import load_registry
from pae_framework.recipe import stage_table
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.stage_table import Stage
from pae_framework.runs import planned
from pae_framework.runs.data_record import ImagesRecord, read_record, write_record
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.record import StageRecord
from pae_framework.system.console import PlainConsole
from pae_framework.system.files import write_json

REGISTRY = load_registry()
RUN = Path("runs/one")
STAGES = [name for name in stage_table.STAGES if name != "teacher"]
Hook = Callable[[str], object]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with three classes of three images, for training and for tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        for name in "abc":
            for number in range(3):
                save(tmp_path / f"data/{split}/{name}/{number}.png", 2 * ord(name) + len(split))
    return tmp_path


def save(path: Path, gray: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), gray).save(path)


class Runs:
    """Runs the quickstart on the images, and does something while it runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.before: Hook = lambda stage: None
        self.during: Hook = lambda stage: None
        monkeypatch.setattr(Stage, "function", lambda stage: self.read)
        run_unfinished = LocalLauncher._run_unfinished

        def hooked(launcher, loaded, directory, planned_stage, *rest) -> None:
            self.before(planned_stage.name)
            run_unfinished(launcher, loaded, directory, planned_stage, *rest)

        monkeypatch.setattr(LocalLauncher, "_run_unfinished", hooked)

    def read(self, context: StageContext) -> None:
        self.during(context.planned.name)

    def __call__(self, *overrides: str) -> str:
        console = PlainConsole(record=True, width=300, file=io.StringIO())
        sources = tuple(
            f"data.{split}={{use: image_folder, folder: data, split: {split}}}"
            for split in ("train", "test")
        )
        loaded = load_recipe(
            "quickstart", (*sources, "evaluate.manifold.ssc=false", *overrides), REGISTRY
        )
        LocalLauncher(console).run(loaded, RunDirectory.at(RUN), "pae run")
        return console.export_text()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(monkeypatch)


CHANGES: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "replaced": lambda path: save(path, 3),
    "added": lambda path: save(path.with_name("new.png"), 3),
}
NAMES = {"deleted": "b/1.png", "replaced": "b/1.png", "added": "b/new.png"}
READERS = ("encoder", "refine", "tokenizer", "latents", "sample")
"""Stages that read training images after the first."""


def once(stage: str, change: Callable[[], object]) -> Hook:
    def hook(name: str) -> None:
        if name == stage:
            change()

    return hook


def each_change(stages: Sequence[str], whole: str) -> pytest.MarkDecorator:
    """Every change before or in every stage; in the default suite, all changes only in one."""
    cases = [
        pytest.param(
            *(stage, change),
            marks=() if stage == whole or change == "replaced" else pytest.mark.slow,
        )
        for stage in stages
        for change in CHANGES
    ]
    return pytest.mark.parametrize(("stage", "change"), cases)


@each_change(READERS, whole="tokenizer")
def test_a_change_between_two_stages_stops_the_run(run: Runs, change: str, stage: str):
    run.before = once(stage, lambda: CHANGES[change](Path("data/train/b/1.png")))
    with pytest.raises(DataError) as stopped:
        run()
    for fact in ("data.train", change, NAMES[change]):
        assert fact in str(stopped.value)
    states = {name: (RUN / name / "stage.json") for name in STAGES if (RUN / name).exists()}
    assert json.loads(states[stage].read_text())["state"] == "failed"


@each_change(["extractor", "tokenizer", "latents"], whole="extractor")
def test_a_change_during_a_stage_stops_the_run(run: Runs, change: str, stage: str):
    run.during = once(stage, lambda: CHANGES[change](Path("data/train/b/1.png")))
    with pytest.raises(DataError, match=rf"data\.train.*{change}.*{NAMES[change]}"):
        run()
    assert json.loads((RUN / stage / "stage.json").read_text())["state"] == "failed"


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_test_images_stops_the_evaluation(run: Runs, change: str):
    run.before = once("evaluate", lambda: CHANGES[change](Path("data/test/b/1.png")))
    with pytest.raises(DataError, match=rf"data\.test.*{change}.*{NAMES[change]}"):
        run()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The images whose contents are read."""
    found: list[Path] = []
    digest = contents.file_digest

    def counted(path: Path) -> str:
        found.append(path)
        return digest(path)

    monkeypatch.setattr(contents, "file_digest", counted)
    return found


def touch_all() -> None:
    for path in Path("data").rglob("*.png"):
        os.utime(path)


def test_images_that_were_copied_moved_or_touched_are_read_once(run: Runs, read: list[Path]):
    run()
    for reads in (18, 0):
        if reads:
            touch_all()
        for stage in (RUN / "stages").glob("*-*"):
            shutil.rmtree(stage)
        read.clear()
        assert run().count("starts") == len(STAGES)
        assert len(read) == reads


def test_images_that_are_touched_during_a_run_are_read_once(run: Runs, read: list[Path]):
    run.before = once("tokenizer", lambda: (touch_all(), read.clear()))
    run()
    assert len(read) == len(set(read)) == 18


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_between_two_runs_the_stages_start_anew(run: Runs, change: str):
    run()
    folders = {name: (RUN / name).resolve() for name in STAGES}
    CHANGES[change](Path("data/train/b/1.png"))

    text = run()

    (line,) = (line for line in text.splitlines() if "data.train" in line)
    assert change in line
    assert NAMES[change] in line
    assert text.count("starts") == len(STAGES)
    assert all((RUN / name).resolve() != folder for name, folder in folders.items())


def test_restored_images_go_on_where_the_run_stopped(run: Runs):
    path = Path("data/train/b/1.png")
    shutil.copy(path, "kept.png")
    run.before = once("tokenizer", path.unlink)
    with pytest.raises(DataError):
        run()
    run.before = lambda stage: None
    shutil.copy("kept.png", path)  # with other times
    text = run()
    assert text.count("cached") == 3
    assert "data.train" not in text


def test_an_unchanged_folder_says_nothing_and_repeats_nothing(run: Runs):
    assert "data." not in run()
    text = run()
    assert text.count("cached") == len(STAGES)
    assert "data." not in text


def test_the_files_of_each_version_are_stored_once(run: Runs):
    run()
    run()
    CHANGES["added"](Path("data/train/b/1.png"))
    run()
    assert len(list((RUN / "stages/data").glob("*.txt"))) == 3  # train twice, test once


def test_a_run_whose_images_are_gone_is_still_finished(run: Runs):
    run()
    Path("data").rename("away")
    assert run().count("cached") == len(STAGES)


# --- classes --------------------------------------------------------------------------------------


def test_the_first_stage_records_the_classes_in_their_order(run: Runs, place: Path):
    for split in ("train", "test"):
        shutil.rmtree(place / "data" / split)
        for name in range(12):
            save(place / f"data/{split}/{name}/0.png", name)
    run()
    record = json.loads((RUN / "extractor" / "data.json").read_text())["train"]
    assert record["class_names"] == ["0", "1", "10", "11", *"23456789"]
    assert record["images"] == 12


@pytest.mark.parametrize("split", ["train", "test"])
def test_splits_with_other_classes_are_refused_before_anything_runs(
    run: Runs, place: Path, split: str
):
    (place / "data" / split / "c").rename(place / "data" / split / "d")
    with pytest.raises(DataError, match=r"data\.test.*c.*d|data\.test.*d.*c"):
        run()
    assert not (RUN / "encoder").exists()


def test_a_class_without_images_is_refused_before_anything_runs(run: Runs, place: Path):
    """Of a source that is no folder: idx labels 0 and 2 of three named classes."""
    images = b"\0\0\x08\3" + struct.pack(">3I", 2, 8, 8) + bytes(128)
    (place / "train-images-idx3-ubyte").write_bytes(images)
    (place / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\1" + struct.pack(">I", 2) + b"\0\2")
    with pytest.raises(DataError, match=r"data\.train.*1 of 3.*b"):
        run("data.train={use: idx, folder: ., class_names: [a, b, c]}")
    assert not (RUN / "encoder").exists()


def test_other_classes_than_those_of_the_first_stage_are_refused(run: Runs):
    """As a source without files may have: its settings do not tell."""

    def rename_first() -> None:
        names = ("a", "b", "cat")
        stage = StageRecord(RUN / "extractor")
        write_record(stage, {"train": ImagesRecord(9, names, None)})

    run.before = once("tokenizer", rename_first)
    with pytest.raises(RunError, match=r"encoder.*data\.json.*data\.train.*extractor.*data\.json"):
        run()


def test_other_classes_than_those_of_an_earlier_stage_are_refused(run: Runs):
    def rename_all() -> None:
        for name in ("extractor", "encoder", "refine"):
            names = ("a", "b", "cat")
            write_record(StageRecord(RUN / name), {"train": ImagesRecord(9, names, None)})

    run.before = once("tokenizer", rename_all)
    with pytest.raises(DataError, match=r"data\.train.*a, b, c.*a, b, cat"):
        run()


DAMAGE = {
    "emptied": lambda content: "",
    "a list": lambda content: "[]",
    "an empty object": lambda content: "{}",
    "no object": lambda content: '{"train": 1}',
    "keys missing": lambda content: '{"train": {"images": 1}}',
    "a null byte": lambda content: "\0",
    "swapped names": lambda content: swap(content, '"a"', '"b"'),
    "another number": lambda content: content.replace("9", "8"),
    "a negative number": lambda content: content.replace("9", "-9"),
    "a number as text": lambda content: content.replace("9", '"9"'),
    "a fraction": lambda content: content.replace("9", "9.5"),
    "names that are equal": lambda content: content.replace('"b"', '"a"'),
    "names that are no texts": lambda content: content.replace('"b"', "[1]"),
    "names in a text": lambda content: re.sub(r"\[.*?\]", '"abc"', content, flags=re.DOTALL),
    "another identity": lambda content: re.sub(r'"identity": ".', '"identity": "x', content),
}


def swap(text: str, one: str, other: str) -> str:
    return text.replace(one, "?").replace(other, one).replace("?", other)


@pytest.mark.parametrize(
    ("recorded", "damage"),
    [
        # In the default suite: no JSON, JSON, and what is right without a digest.
        pytest.param(
            *(recorded, damage),
            marks=()
            if damage in ("a null byte", "swapped names")
            or (recorded and damage in ("emptied", "another identity", "an empty object"))
            else pytest.mark.slow,
        )
        for recorded in (True, False)
        for damage in DAMAGE
    ],
)
def test_a_damaged_record_is_named_and_can_be_removed(run: Runs, damage: str, recorded: bool):
    """Without its digest in the stage's record, as of an earlier version, only its shape tells."""
    record = RUN / "extractor" / "data.json"

    def change() -> None:
        record.write_text(DAMAGE[damage](record.read_text()))
        if not recorded:
            StageRecord(record.parent).update(data_digest="")

    run.before = once("tokenizer", change)
    known = not recorded and damage in ("an empty object", "another identity")
    if known:
        run()
        return
    with pytest.raises(RunError, match=r"extractor.*/data\.json.*remove"):
        run()
    record.unlink()
    run.before = lambda stage: None
    run()
    assert json.loads((RUN / "tokenizer" / "data.json").read_text())["train"]["images"] == 9


@pytest.mark.parametrize("allowed", range(3))
def test_a_kill_while_a_record_is_written_leaves_no_damage(
    run: Runs, monkeypatch: pytest.MonkeyPatch, allowed: int
):
    run()
    stage = StageRecord(RUN / "extractor")
    record = ImagesRecord(9, ("x", "y", "z"), None)
    written = []

    def killed(path: Path, value: object) -> None:
        if len(written) == allowed:
            raise KeyboardInterrupt
        write_json(path, value)
        written.append(path)

    for module in ("data_record", "record"):
        monkeypatch.setattr(f"pae_framework.runs.{module}.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        write_record(stage, {"train": record})
    assert read_record([stage.path], "train") is not None


def test_restored_images_are_not_said_to_start_stages_anew(run: Runs):
    """Their finished stages are there."""
    image = Path("data/train/b/1.png")
    content = image.read_bytes()
    run()
    save(image, 3)
    assert "start anew" in run()
    image.write_bytes(content)
    text = run()
    assert text.count("cached") == len(STAGES)
    assert "b/1.png" in text
    assert "anew" not in text


@pytest.mark.parametrize(
    "damage", ["", "{}", *(pytest.param(x, marks=pytest.mark.slow) for x in ("[]", "null", "\0"))]
)
def test_a_damaged_list_of_known_sources_is_written_anew(run: Runs, damage: str):
    run()
    known = RUN / "stages/data/known.json"
    whole = known.read_text()
    known.write_text(damage)
    assert run().count("cached") == len(STAGES)
    assert known.read_text() == whole


@pytest.mark.parametrize("name", ["known.json", "*.json.gz", "../extractor-*/data.json"])
def test_a_pipe_in_place_of_a_record_blocks_nothing(run: Runs, name: str):
    run()
    for record in (RUN / "stages/data").glob(name):
        record.unlink()
        os.mkfifo(record)
    assert run().count("cached") == len(STAGES)


def test_what_is_left_out_is_said_once(run: Runs, place: Path):
    (place / "data/train/a/notes.txt").touch()
    text = run()
    assert text.count("left out") == 1
    assert "data.train" in text
    assert ".txt" in text


# --- runs of earlier versions ---------------------------------------------------------------------


def as_earlier_version(run: Runs, monkeypatch: pytest.MonkeyPatch, until: str) -> None:
    """Run as a version did that identified images by their path, and recorded none."""

    def stop() -> None:
        raise PaeError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr("pae_framework.launch.description.found_contents", lambda recipe: {})
        run.before = once(until, stop)
        with pytest.raises(PaeError, match="stopped"):
            run()
    run.before = lambda stage: None
    for record in (RUN / "stages").glob("*/data.json"):
        record.unlink()


def test_stages_of_an_earlier_version_are_kept_and_identified_once(
    run: Runs, monkeypatch: pytest.MonkeyPatch
):
    as_earlier_version(run, monkeypatch, until="latents")
    first = run()
    assert first.count("cached") == 4
    assert first.count("identified") == 4
    assert json.loads((RUN / "encoder/data.json").read_text())["train"]["class_names"] == [*"abc"]
    again = run()
    assert again.count("cached") == len(STAGES)
    assert "identified" not in again


def test_after_the_first_visit_they_are_not_used_for_other_images(
    run: Runs, monkeypatch: pytest.MonkeyPatch
):
    as_earlier_version(run, monkeypatch, until="latents")
    run()
    CHANGES["replaced"](Path("data/train/b/1.png"))
    text = run()
    assert text.count("starts") == len(STAGES)
    assert "b/1.png" in text


@pytest.mark.parametrize(
    ("name", "number"), [("a/moving.gif", "not 1 other"), ("a/.hidden/0.png", "1 that are left")]
)
def test_a_run_is_told_that_an_earlier_version_read_other_files(
    run: Runs, monkeypatch: pytest.MonkeyPatch, name: str, number: str
):
    save(Path("data/train") / name, 9)
    as_earlier_version(run, monkeypatch, until="latents")
    first = run()
    assert number in first
    assert "10 images" in first
    assert number not in run()


def test_the_helper_runs_as_an_earlier_version(run: Runs, monkeypatch: pytest.MonkeyPatch):
    as_earlier_version(run, monkeypatch, until="latents")
    assert not list((RUN / "stages").glob("*/data.json"))
    assert planned.IDENTIFIED not in (RUN / "encoder/stage.json").read_text()
