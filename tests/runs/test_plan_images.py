"""What of a folder of images changes a stage: background and part, but not the cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from plan_helpers import REGISTRY, fingerprints

from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.models import Recipe
from pae_framework.runs.changes import difference
from pae_framework.runs.plan import PlannedStage, plan


def planned(path: Path, override: str) -> tuple[Recipe, dict[str, PlannedStage]]:
    recipe = load_recipe(path, [override], REGISTRY).recipe
    return recipe, {stage.name: stage for stage in plan(recipe, REGISTRY)}


def folder_of(tmp_path: Path, *names: str) -> str:
    """A data source of files with these names, as an override without its last brace."""
    for name in names:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"")
    return f"data.train={{use: image_folder, folder: {tmp_path / 'images'}"


def test_a_background_is_counted_although_it_is_the_default(tmp_path, tiny_recipe):
    source = folder_of(tmp_path, "a/1.png")
    white = fingerprints(tiny_recipe, f"{source}}}")
    assert white == fingerprints(tiny_recipe, f"{source}, background: white}}")
    others = [
        fingerprints(tiny_recipe, f"{source}, background: {color}}}")
        for color in ("black", "stored", "[255, 255, 254]")
    ]
    for stage in white:
        assert len({white[stage], *(other[stage] for other in others)}) == 4


def test_a_background_is_counted_whether_the_images_are_there_or_not(tmp_path, tiny_recipe):
    source = f"data.train={{use: image_folder, folder: {tmp_path / 'gone'}"
    white, stored = (
        fingerprints(tiny_recipe, f"{source}, background: {color}}}")
        for color in ("white", "stored")
    )
    assert all(white[stage] != stored[stage] for stage in white)


def test_stored_colors_have_the_fingerprints_of_versions_without_backgrounds(tmp_path, tiny_recipe):
    source = folder_of(tmp_path, "a/1.png")
    _, stored = planned(tiny_recipe, f"{source}, background: stored}}")
    config = stored["encoder"].hashed["parts"]["train_images"]["config"]
    assert config == {"folder": str(tmp_path / "images")}


def test_a_run_that_ignored_transparency_differs_in_the_background(tmp_path, tiny_recipe):
    source = folder_of(tmp_path, "a/1.png")
    _, before = planned(tiny_recipe, f"{source}, background: stored}}")
    recipe, now = planned(tiny_recipe, f"{source}}}")
    old, new = before["encoder"].hashed, now["encoder"].hashed
    (change,) = difference("encoder", old, new, recipe).changes
    assert change.key == ("data", "train", "background")
    assert (change.old, change.new) == ("stored", "white")


def test_the_cache_of_images_changes_no_fingerprint(tmp_path, tiny_recipe):
    source = folder_of(tmp_path, "a/1.png")
    with_cache = fingerprints(tiny_recipe, f"{source}}}")
    assert with_cache == fingerprints(tiny_recipe, f"{source}, cache_gib: 0}}")


@pytest.mark.parametrize("other", ["holdout: 0.2", "holdout: 0.25, part: test"])
def test_a_part_changes_the_images(tmp_path, tiny_recipe, other):
    source = folder_of(tmp_path, *(f"a/{n}.png" for n in range(40)))
    quarter = fingerprints(tiny_recipe, f"{source}, holdout: 0.25}}")
    part = fingerprints(tiny_recipe, f"{source}, {other}}}")
    assert all(quarter[stage] != part[stage] for stage in quarter)
