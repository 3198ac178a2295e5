"""A dry run of images on disk reads none of them and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pae_framework.data import contents
from pae_framework.dry_run.summary import DryRun
from pae_framework.launch.start import RunOptions, dry_run_recipe
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.data_record import found_contents
from pae_framework.runs.plan import plan
from pae_framework.runs.planned import planned_stages

REGISTRY = load_registry()


def test_it_uses_what_is_known_of_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for number in range(60):
        path = Path("data", "abc"[number % 3], f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(path)
    sources = [
        f"data.{split}={{use: image_folder, folder: data, cache_gib: 0}}"
        for split in ("train", "test")
    ]
    others = ("evaluate.manifold={images: 40, ssc: false}", "evaluate.generation=null")
    loaded = load_recipe("quickstart", (*sources, *others), REGISTRY)

    def dry_run() -> DryRun:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        with monkeypatch.context() as patch:
            patch.setattr(contents, "file_digest", lambda path: pytest.fail(f"{path} is read"))
            (result,) = dry_run_recipe(loaded, RunOptions(run_dir=Path("run"))).values()
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        return result

    first = dry_run()
    assert [stage.folder for stage in first.stages] == [
        stage.folder for stage in plan(loaded.recipe, REGISTRY)
    ]
    assert sum("read" in note and "data." in note for note in first.notes) == 2

    found_contents(loaded.recipe)  # as `pae run` does
    second = dry_run()
    assert [stage.folder for stage in second.stages] == [
        stage.folder for stage in planned_stages(loaded, Path("run/stages")).values()
    ]
    assert not any("data." in note for note in second.notes)
