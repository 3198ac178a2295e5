"""``pae run``: carry out a recipe, or go on where it stopped."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pae_framework.cli.arguments import OverridesArgument, RecipeArgument
from pae_framework.errors import RecipeError, UsageError
from pae_framework.files import read_json

if TYPE_CHECKING:
    from rich.console import Console

    from pae_framework.recipe.loaded import LoadedRecipe
    from pae_framework.runs.directory import RunDirectory


def run(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="the run's directory; default: runs/<recipe name>")
    ] = None,
    stages: Annotated[
        Path | None,
        typer.Option(help="where stages are kept, to share another run's; default: RUN/stages"),
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="of a sweep: the members to run, a pattern such as 'ssr-*'")
    ] = None,
) -> None:
    """Carry out a recipe: every stage that is not done yet, then print the results.

    The same command goes on where a stopped run was; after an edit of the recipe, only what changed
    and what follows from it runs again.

    Examples:
        pae run quickstart

        pae run fashion_mnist generator.train.steps=2000 --run-dir runs/longer

        pae run fashion_mnist sample.steps=5 --run-dir runs/five --stages runs/fashion_mnist/stages
    """
    from rich.console import Console

    from pae_framework.plugins import load_registry
    from pae_framework.recipe.load import load_recipe
    from pae_framework.recipe.needs import missing_here
    from pae_framework.runs.directory import RunDirectory, kept_store

    loaded = load_recipe(recipe, overrides or (), load_registry())
    if missing := missing_here(loaded):
        raise RecipeError(missing)
    path = run_dir or Path("runs") / loaded.recipe.name
    RunDirectory.at(path).claim(loaded.recipe.name, sweep=loaded.recipe.sweep is not None)
    console = Console(highlight=False)
    command = shlex.join(["pae", *sys.argv[1:]])
    if loaded.recipe.sweep and stages:
        raise UsageError("--stages is for single runs; a sweep shares its stages already")
    if loaded.recipe.sweep:
        _run_sweep(loaded, path, only, command, console)
    elif only:
        raise UsageError(f"--only is for sweeps; {loaded.recipe.name} has no `sweep:`")
    else:
        _run_one(loaded, RunDirectory.at(path, stages or kept_store(path)), command, console)


def _run_one(loaded: LoadedRecipe, directory: RunDirectory, command: str, console: Console) -> None:
    """Run one recipe; print its results."""
    from pae_framework.launch.local import LocalLauncher
    from pae_framework.report.table import result_rows
    from pae_framework.report.text import results_table
    from pae_framework.runs.directory import REPORT

    LocalLauncher(console).run(loaded, directory, command)
    results = directory.path / "evaluate" / "results.json"
    if results.is_file():
        console.print(results_table(result_rows(read_json(results))))
    console.print(f"report: {directory.path / REPORT}", soft_wrap=True)


def _run_sweep(
    loaded: LoadedRecipe, path: Path, only: str | None, command: str, console: Console
) -> None:
    """Run the members of a sweep; print them side by side."""
    from pae_framework.launch.sweep import SweepLauncher
    from pae_framework.report.table import MemberMetrics, comparison_table
    from pae_framework.report.text import comparison_tables

    launcher = SweepLauncher(console)
    members = launcher.members(loaded, only)
    launcher.run(loaded, path, members, command)
    results = read_json(path / "results.json")
    rows = [MemberMetrics(found["variant"], found["seed"], found["metrics"]) for found in results]
    for table in comparison_tables(*comparison_table(rows)):
        console.print(table)
    console.print(f"report: {path / 'report.html'}", soft_wrap=True)
