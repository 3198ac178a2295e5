"""``resolved.yaml`` names the data of a run wherever it is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from plan_helpers import REGISTRY

from pae_framework.recipe.load import load_recipe
from pae_framework.runs.data_record import found_contents, identities, remember
from pae_framework.runs.plan import plan

SOURCES = {
    "image_folder": ("{use: image_folder, folder: data, masks: masks}", ["folder", "masks"]),
    "image_folder with a split": ("{use: image_folder, folder: ./data, split: one}", ["folder"]),
    "idx": ("{use: idx, folder: [data, ../other]}", ["folder"]),
    "parquet": ("{use: parquet, folder: ~/data}", ["folder"]),
    "webdataset": ("{use: webdataset, folder: data/../data}", ["folder"]),
}


@pytest.mark.parametrize("source", SOURCES)
def test_paths_of_data_are_absolute(tmp_path, monkeypatch, tiny_recipe, source):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    text, keys = SOURCES[source]
    loaded = load_recipe(tiny_recipe, [f"data.train={text}"], REGISTRY)
    (tmp_path / "resolved.yaml").write_text(loaded.resolved_yaml())
    config = load_recipe(tmp_path / "resolved.yaml", (), REGISTRY).recipe.data.train.config
    for key in keys:
        written = getattr(config, key)
        for path in [written] if isinstance(written, str) else written:
            assert path.startswith(str(tmp_path.parent))
            assert ".." not in path
    assert getattr(config, "split", None) == getattr(loaded.recipe.data.train.config, "split", None)


def fill(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(folder / name / "0.png")


def test_the_images_have_one_identity_by_either_path(tmp_path, monkeypatch, tiny_recipe):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "data")
    relative, absolute = (
        load_recipe(
            tiny_recipe, [f"data.train={{use: image_folder, folder: {folder}}}"], REGISTRY
        ).recipe
        for folder in ("data", tmp_path / "data")
    )
    found = found_contents(relative)
    remember(relative, tmp_path / "stages", found)
    assert identities(absolute, tmp_path / "stages", {}) == identities(
        relative, tmp_path / "stages", found
    )
    contents = [
        (recipe.data.train.config, found["train"].identity) for recipe in (relative, absolute)
    ]
    first, second = (
        [stage.fingerprint for stage in plan(recipe, REGISTRY, [content])]
        for recipe, content in zip((relative, absolute), contents, strict=True)
    )
    assert first == second


def test_images_that_an_earlier_version_identified_are_known(tmp_path, monkeypatch, tiny_recipe):
    """It recorded all settings that it had, and the path as it was written."""
    monkeypatch.chdir(tmp_path)
    settings = {"folder": "data", "split": None, "masks": None, "images": None, "classes": None}
    key = json.dumps(["image_folder", {**settings, "reduced_jpeg": False}], sort_keys=True)
    (tmp_path / "stages" / "data").mkdir(parents=True)
    (tmp_path / "stages" / "data" / "known.json").write_text(
        json.dumps({"damaged": "x", key: "its identity"})
    )
    recipe = load_recipe(
        tiny_recipe, ["data.train={use: image_folder, folder: data}"], REGISTRY
    ).recipe
    assert identities(recipe, tmp_path / "stages", {}) == {"train": "its identity"}
