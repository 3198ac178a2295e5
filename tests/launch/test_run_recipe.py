"""Starting a recipe from Python, as a notebook does."""

from __future__ import annotations

import json
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import pytest

from pae_framework.errors import RecipeError, UsageError
from pae_framework.launch.ranks import count_processes
from pae_framework.launch.start import RunOptions, run_recipe
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.status import run_status
from pae_framework.system.console import PlainConsole

QUIET = PlainConsole(quiet=True)


def test_the_lines_of_the_docstring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _, _, example = str(run_recipe.__doc__).partition("::\n\n")
    code, _, _ = example.partition("    Args:")
    names: dict[str, Any] = {}
    exec(textwrap.dedent(code), names)
    run = names["run"]
    assert run.path.parent == tmp_path  # a new temporary folder, not runs/
    assert not (tmp_path / "runs").exists()
    assert run.info["command"] == "run_recipe"
    assert {row.state for row in run_status(run.path)["quickstart-smoke"]} == {"done"}
    printed = capsys.readouterr().out
    assert json.loads(printed[printed.index("\n[") :])  # the results, below the progress


def test_missing_requirements_are_reported_before_a_directory_is_made(
    tmp_path: Path, tiny_recipe: Path
):
    loaded = load_recipe(tiny_recipe, (f"data.train={{use: image_folder, folder: {tmp_path}/no}}",))
    with pytest.raises(RecipeError) as caught:
        run_recipe(loaded, RunOptions(run_dir=tmp_path / "run"), QUIET)
    assert [problem.path for problem in caught.value.problems] == ["data.train"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("option", "name"), [("only", "--only"), ("stages", "--stages")])
def test_options_that_do_not_fit_the_recipe(tmp_path: Path, tiny_recipe: Path, option, name):
    sweep = "sweep={seeds: [0], variants: {a: {seed: 1}}}"
    loaded = load_recipe(tiny_recipe, () if option == "only" else (sweep,))
    with pytest.raises(UsageError, match=name):
        run_recipe(loaded, RunOptions(tmp_path / "run", **{option: "x"}), QUIET)
    assert not (tmp_path / "run").exists()


def test_a_sweep_runs_the_chosen_members(tmp_path: Path, tiny_recipe: Path):
    variants = (
        "{a: {generator.objective.label_drop: 0.2}, b: {generator.objective.label_drop: 0.1}}"
    )
    loaded = load_recipe(tiny_recipe, (f"sweep={{seeds: [0], variants: {variants}}}",))
    options = RunOptions(tmp_path / "sweep", only="b-*", smoke=True)  # keeps the chosen variants
    run = run_recipe(loaded, options, QUIET)
    found = json.loads((run.path / "results.json").read_text(encoding="utf-8"))
    assert [member["member"] for member in found] == ["b-seed0"]
    assert run.info["members"] == ["b-seed0"]


def test_paths_and_numbers_of_options_may_be_text_or_not():
    assert RunOptions(run_dir="runs/a", stages="runs/b") == RunOptions(
        run_dir=Path("runs/a"), stages=Path("runs/b")
    )
    assert count_processes(3) == count_processes("3") == 3
