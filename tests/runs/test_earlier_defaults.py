"""The recipe that a run of an earlier version recorded means what that version did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from plan_helpers import REGISTRY, fingerprints

from pae_framework.recipe.load import load_recipe
from pae_framework.runs.directory import RESOLVED, write_description
from pae_framework.runs.opened import open_run
from pae_framework.system.files import digest_of_text

SOURCE = "{{use: image_folder, folder: /absent/{0}, background: {1}}}"


def of(background: str) -> list[str]:
    sources = [f"data.{part}={SOURCE.format(part, background)}" for part in ("train", "test")]
    return [*sources, "evaluate.manifold=null"]


@pytest.fixture
def old_run(tmp_path: Path, tiny_recipe: Path) -> Path:
    """A run on transparent images as the version before `background` described it."""
    run = tmp_path / "run"
    run.mkdir()
    loaded = load_recipe(tiny_recipe, of("stored"), REGISTRY)
    info = {"name": loaded.recipe.name, "command": "pae run tiny", "plan": [], "store": "stages"}
    write_description(run, info, loaded, starts=True)
    resolved = yaml.safe_load((run / RESOLVED).read_text())
    for part in ("train", "test"):
        del resolved["data"][part]["background"]
    text = yaml.safe_dump(resolved)
    (run / RESOLVED).write_text(text)
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(info | {"resolved": digest_of_text(text)}))
    return run


def test_an_opened_run_reads_the_images_that_it_was_trained_on(old_run, tiny_recipe):
    data = open_run(old_run, REGISTRY).loaded.recipe.data
    assert [source.config.background for source in (data.train, data.test)] == ["stored"] * 2
    assert fingerprints(old_run / RESOLVED) == fingerprints(tiny_recipe, *of("stored"))


@pytest.mark.parametrize(
    ("override", "train"),
    [
        ("tokenizer.train.steps=7", "stored"),
        ("data.train.folder=others", "stored"),
        ("data.train.background=white", "white"),
        ("data.train={use: image_folder, folder: others}", "white"),
    ],
)
def test_what_an_override_replaces_is_not_of_the_run(old_run, override, train):
    data = load_recipe(old_run / RESOLVED, [override], REGISTRY).recipe.data
    assert (data.train.config.background, data.test.config.background) == (train, "stored")


@pytest.mark.parametrize("evaluator", ["adm", "fidelity"])
def test_the_test_images_are_the_reference_that_earlier_versions_left_unset(tiny_recipe, evaluator):
    unset, test, file = (
        fingerprints(tiny_recipe, f"evaluate.{evaluator}={{weights: none, {reference}}}")
        for reference in ("reference: null", "reference: test", "reference: r.npz")
    )
    assert unset == test != file


def test_other_recipes_have_the_present_defaults(old_run):
    text = (old_run / RESOLVED).read_text()
    for file in (old_run / "other.yaml", old_run.parent / RESOLVED):
        file.write_text(text)
        assert load_recipe(file, (), REGISTRY).recipe.data.train.config.background == "white"
