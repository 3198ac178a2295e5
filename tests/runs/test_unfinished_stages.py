"""What a run asks of a machine, given what was done before."""

from __future__ import annotations

from pathlib import Path

from pae_framework.plugins import load_registry
from pae_framework.preflight.machine import Machine
from pae_framework.preflight.requirements import missing_requirements, unfinished_stages
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.runs.plan import plan
from pae_framework.system.files import write_json

REGISTRY = load_registry()
NOWHERE = "data.train={use: image_folder, folder: nowhere, images: 9, classes: 3}"
PLENTY = Machine(1 << 40, ())


def finish(loaded: LoadedRecipe, store: Path, *names: str) -> None:
    """Record stages as done."""
    for stage in plan(loaded.recipe, REGISTRY):
        if stage.name in names:
            write_json(store / stage.folder / "stage.json", {"state": "done"})


def test_stages_are_unfinished_until_they_are_done(tiny_recipe: Path, tmp_path: Path) -> None:
    loaded = load_recipe(tiny_recipe, (), REGISTRY)
    everything = {stage.name for stage in plan(loaded.recipe, REGISTRY)}
    assert unfinished_stages(loaded, None) == unfinished_stages(loaded, tmp_path) == everything
    finish(loaded, tmp_path, "extractor", "encoder")
    assert unfinished_stages(loaded, tmp_path) == everything - {"extractor", "encoder"}
    # of another recipe, other stages are done
    other = load_recipe(tiny_recipe, ["tokenizer.encoder.depth=3"], REGISTRY)
    assert unfinished_stages(other, tmp_path) == everything - {"extractor"}


def test_training_images_may_be_deleted_after_training(tiny_recipe: Path, tmp_path: Path) -> None:
    loaded = load_recipe(tiny_recipe, [NOWHERE], REGISTRY)
    assert [problem.path for problem in missing_requirements([loaded], tmp_path, PLENTY)] == [
        "data.train"
    ]
    finish(loaded, tmp_path, "extractor", "encoder", "refine", "tokenizer", "latents")
    assert [problem.path for problem in missing_requirements([loaded], tmp_path, PLENTY)] == [
        "data.train"
    ]
    finish(loaded, tmp_path, "sample")
    assert missing_requirements([loaded], tmp_path, PLENTY) == []
