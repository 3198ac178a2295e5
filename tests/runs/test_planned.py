"""Stages are found by the contents of their images, wherever these are and however spelled."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from plan_helpers import REGISTRY

from pae_framework.recipe.load import load_recipe
from pae_framework.runs import planned
from pae_framework.runs.data_record import found_contents, remember
from pae_framework.runs.looking import looking_once
from pae_framework.runs.plan import plan
from pae_framework.runs.planned import IDENTIFIED, planned_stages


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with images in ``data/train`` and ``data/test``."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        for name in "abc":
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            Image.new("L", (8, 8), ord(name)).save(folder / "0.png")
    return tmp_path


def loaded(train: str = "folder: data, split: train", test: str = "folder: data, split: test"):
    sources = (f"data.{split}={{use: image_folder, {text}}}"
               for split, text in (("train", train), ("test", test)))  # fmt: skip
    return load_recipe("quickstart", (*sources, "evaluate.manifold.ssc=false"), REGISTRY)


def folders(recipe, store: str = "stages") -> dict[str, str]:
    return {name: stage.folder for name, stage in planned_stages(recipe, Path(store)).items()}


def write_record(folder: str, **values: object) -> Path:
    record = Path("stages", folder, "stage.json")
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"state": "done", **values}))
    return record


def former_folder(recipe, stage: str) -> str:
    return next(x.folder for x in plan(recipe.recipe, REGISTRY) if x.name == stage)


@pytest.mark.parametrize(
    "train",
    [
        "folder: ./data/, split: train",
        "folder: data//, split: train",
        "folder: data/train",
        "folder: data/../data/train/.",
        "folder: link, split: train",
        "folder: moved, split: train",
        "folder: '{here}/data', split: train",
    ],
)
def test_the_same_images_are_the_same_stages(place: Path, train: str):
    (place / "link").symlink_to("data")
    shutil.copytree(place / "data", place / "moved")
    assert folders(loaded(train.format(here=place))) == folders(loaded())


CHANGES: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "replaced": lambda path: Image.new("L", (8, 8), 3).save(path),
    "added": lambda path: Image.new("L", (8, 8), 3).save(path.with_name("new.png")),
    "renamed": lambda path: path.rename(path.with_name("1.png")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_training_images_are_other_stages(place: Path, change: str):
    for name in "abc":
        shutil.copy(place / f"data/train/{name}/0.png", place / f"data/train/{name}/spare.png")
    before = folders(loaded())
    CHANGES[change](place / "data/train/b/0.png")
    after = folders(loaded())
    assert not before.keys() - after.keys()
    assert not set(before.values()) & set(after.values())


def test_other_test_images_are_another_evaluation(place: Path):
    before = folders(loaded())
    CHANGES["replaced"](place / "data/test/b/0.png")
    after = folders(loaded())
    assert {name for name in before if before[name] != after[name]} == {"evaluate", "report"}


def test_images_that_are_not_here_count_by_their_path():
    recipe = loaded("folder: nowhere", "folder: nowhere")
    assert list(folders(recipe).values()) == [x.folder for x in plan(recipe.recipe, REGISTRY)]


def test_images_that_are_gone_count_as_they_were(place: Path):
    before = folders(loaded())
    remember(loaded().recipe, Path("stages"), found_contents(loaded().recipe))
    (place / "data").rename(place / "away")
    assert folders(loaded()) == before


def test_idx_files_count_by_their_contents_too(place: Path):
    def write(folder: str, pixel: int) -> None:
        Path(folder).mkdir(exist_ok=True)
        for split in ("train", "t10k"):
            images = b"\0\0\x08\3" + struct.pack(">3I", 1, 1, 1) + bytes([pixel])
            labels = b"\0\0\x08\1" + struct.pack(">I", 1) + b"\0"
            Path(folder, f"{split}-images-idx3-ubyte").write_bytes(images)
            Path(folder, f"{split}-labels-idx1-ubyte").write_bytes(labels)

    def stages(folder: str) -> set[str]:
        sources = (f"data.{split}={{use: idx, folder: {folder}, split: {split}}}"
                   for split in ("train", "test"))  # fmt: skip
        return set(folders(load_recipe("quickstart", tuple(sources), REGISTRY)).values())

    write("one", 1)
    write("two", 1)
    first = stages("one")
    assert stages("./two/") == stages("[nowhere, one]") == first
    write("one", 2)
    assert not stages("one") & first


# --- runs of earlier versions ---------------------------------------------------------------------


@pytest.mark.parametrize("state", ["done", "stopped", "failed"])
def test_a_stage_of_an_earlier_version_is_found(state: str):
    folder = former_folder(loaded(), "encoder")
    write_record(folder, state=state)
    assert folders(loaded())["encoder"] == folder
    assert folders(loaded())["refine"] != former_folder(loaded(), "refine")  # it was not begun


def test_it_belongs_to_the_images_of_the_first_visit(place: Path):
    folder = former_folder(loaded(), "encoder")
    record = write_record(folder)
    identified = planned_stages(loaded(), Path("stages"))["encoder"].identified
    record.write_text(json.dumps({"state": "done", IDENTIFIED: identified}))
    assert folders(loaded())["encoder"] == folder
    assert folders(loaded("folder: ./data/train"))["encoder"] == folder  # spelled otherwise

    CHANGES["replaced"](place / "data/train/b/0.png")
    assert folders(loaded())["encoder"] != folder


def test_a_stage_identified_by_its_images_comes_first():
    own = folders(loaded())["encoder"]
    write_record(own)
    write_record(former_folder(loaded(), "encoder"))
    assert folders(loaded())["encoder"] == own


def test_a_command_reads_the_records_of_other_recipes_once(monkeypatch: pytest.MonkeyPatch):
    """Otherwise the cost of a sweep grows with the square of its members."""
    others = [write_record(f"encoder-{number:012}").parent for number in range(20)]
    read: list[Path] = []
    info = planned.known_info
    monkeypatch.setattr(planned, "known_info", lambda path: (read.append(path), info(path))[1])
    with looking_once():
        for _ in range(5):
            folders(loaded())
    assert all(read.count(Path("stages", path.name)) == 1 for path in others)


@pytest.mark.parametrize("damage", ["", "{", "[]", "3", "\0"])
def test_a_damaged_record_of_another_recipe_is_passed_over(damage: str):
    write_record("encoder-000000000000").write_text(damage)
    own = folders(loaded())["encoder"]
    assert own not in (former_folder(loaded(), "encoder"), "encoder-000000000000")
