"""What `pae check` says of image folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pae_framework.testing.pytest import Pae


def recipe() -> tuple[str, ...]:
    sources = (
        f"data.{split}={{use: image_folder, folder: data, split: {split}}}"
        for split in ("train", "test")
    )
    return ("quickstart", *sources, "evaluate.manifold.ssc=false")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for name in "abc":
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            Image.new("L", (8, 8)).save(folder / "0.png")
    return tmp_path / "data"


def test_a_valid_folder_is_valid(pae: Pae, data: Path):
    assert pae("check", *recipe()).ok().out.startswith("quickstart: valid\n")


def test_other_classes_of_the_test_images_are_reported(pae: Pae, data: Path):
    (data / "test/c").rename(data / "test/d")
    text = pae("check", *recipe()).fails(2).err
    assert "data.test" in text
    assert "only in data.train: c; only in data.test: d" in text
    (problem,) = pae("check", *recipe(), "--json").fails(2).json["problems"]
    assert problem["path"] == "data.test"
    refused = pae("run", *recipe()).fails(2)
    assert "only in data.test: d" in refused.err
    assert not (data.parent / "runs").exists()


def test_what_is_left_out_is_counted(pae: Pae, data: Path):
    (data / "train/a/.ipynb_checkpoints").mkdir()
    (data / "train/b/notes.txt").touch()
    (data / "train/c/gone.png").symlink_to("nowhere.png")
    text = pae("check", *recipe()).ok().out
    assert "data.train: left out: broken links: 1; hidden: 1; other types: 1 (.txt)" in text
    assert "data.test: left out" not in text


def test_missing_masks_are_reported(pae: Pae, data: Path):
    with_masks = (*recipe()[:-1], "data.test.masks=data/masks")  # SSC is on
    for name in "ac":
        (data / "masks" / name).mkdir(parents=True)
        Image.new("P", (8, 8)).save(data / f"masks/{name}/0.png")
    text = pae("check", *with_masks).ok().out
    assert "data.test: 1 of 3 images have no mask in data/masks: b/0.png" in text
    (data / "masks/b").symlink_to("a")
    assert pae("check", *with_masks).ok().out.startswith("quickstart: valid\n")
    assert "masks" in pae("check", *recipe()[:-1]).fails(2).err
