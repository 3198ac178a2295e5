"""``pae run``: carry out a recipe, or go on where it stopped."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pae_framework.cli.arguments import OverridesArgument, RecipeArgument
from pae_framework.cli.output import console_for_tables, print_json, warn
from pae_framework.errors import RecipeError, UsageError
from pae_framework.files import read_json

if TYPE_CHECKING:
    from rich.console import Console

    from pae_framework.recipe.loaded import LoadedRecipe
    from pae_framework.recipe.sweep import Member
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
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help="the same wiring, tried in seconds: small untrained models, generated images, a "
            "few steps per stage, on the CPU, no network; in a new temporary folder by default",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="only say what it would do: sizes, steps and epochs, memory, FLOPs, stages; "
            "needs no data and no weights, writes nothing",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="of --dry-run: print JSON and nothing else")
    ] = False,
) -> None:
    """Carry out a recipe: every stage that is not done yet, then print the results.

    The same command goes on where a stopped run was; after an edit of the recipe, only what changed
    and what follows from it runs again. What is missing on this machine is said before it starts;
    weights, where nothing else is missing, are downloaded (not if HF_HUB_OFFLINE is set).

    Examples:
        pae run quickstart

        pae run siglip2_full --dry-run

        pae run siglip2_full --smoke

        pae run fashion_mnist generator.train.steps=2000 --run-dir runs/longer

        pae run fashion_mnist sample.steps=5 --run-dir runs/five --stages runs/fashion_mnist/stages
    """
    from rich.console import Console

    from pae_framework.plugins import load_registry
    from pae_framework.preflight.download import fetch_at_first_use
    from pae_framework.preflight.requirements import low_memory, missing_requirements
    from pae_framework.recipe.load import load_recipe
    from pae_framework.recipe.smoke import smoke_recipe
    from pae_framework.runs.directory import RunDirectory, stages_dir_of

    loaded = load_recipe(recipe, overrides or (), load_registry())
    if loaded.recipe.sweep and stages:
        raise UsageError("--stages is for single runs; a sweep shares its stages already")
    if only and not loaded.recipe.sweep:
        raise UsageError(f"--only is for sweeps; {loaded.recipe.name} has no `sweep:`")
    if as_json and not dry_run:
        raise UsageError("--json is for --dry-run; `pae status RUN --json` tells of a run")
    if smoke:
        loaded = smoke_recipe(loaded)
    if dry_run:
        path = run_dir or Path("runs") / loaded.recipe.name
        _dry_run(loaded, path, stages, only, as_json)
        return
    members = _chosen(loaded, only)
    recipes = [member.loaded for member in members] or [loaded]
    console = Console(highlight=False)
    path = run_dir or _default_directory(loaded.recipe.name, smoke)
    store = (
        path / "stages" if members else RunDirectory.at(path, stages or stages_dir_of(path)).store
    )
    if missing := fetch_at_first_use(recipes, missing_requirements(recipes, store), console.print):
        raise RecipeError(missing)
    for problem in low_memory(recipes, store):
        warn(str(problem))
    RunDirectory.at(path).claim(loaded.recipe.name, sweep=loaded.recipe.sweep is not None)
    command = shlex.join(["pae", *sys.argv[1:]])
    if members:
        _run_sweep(loaded, path, members, command, console)
    else:
        _run_one(loaded, RunDirectory.at(path, store), command, console)


def _chosen(loaded: LoadedRecipe, only: str | None) -> list[Member]:
    """The members of a sweep that are to run; none of a single recipe."""
    from pae_framework.recipe.sweep import chosen_members

    return chosen_members(loaded, only) if loaded.recipe.sweep else []


def _default_directory(name: str, smoke: bool) -> Path:
    """runs/<name>; of a smoke run a new one each time, so that nothing was done before."""
    return Path(tempfile.mkdtemp(prefix=f"pae-{name}-")) if smoke else Path("runs") / name


def _dry_run(
    loaded: LoadedRecipe, path: Path, stages: Path | None, only: str | None, as_json: bool
) -> None:
    """Say what would be done; of a sweep, of every member that would run."""
    from pae_framework.runs.directory import RunDirectory, stages_dir_of

    members = _chosen(loaded, only)
    from pae_framework.dry_run.render import dry_run_lines, members_table
    from pae_framework.dry_run.summary import dry_run as forecast

    if members:
        store = RunDirectory.at(path, path / "stages")
        found = [(member.name, forecast(member.loaded, store)) for member in members]
    else:
        directory = RunDirectory.at(path, stages or stages_dir_of(path))
        found = [(loaded.recipe.name, forecast(loaded, directory))]
    if as_json:
        plain = {name: one.plain() for name, one in found}
        print_json({"members": plain} if members else plain[loaded.recipe.name])
        return
    console = console_for_tables()
    for line in dry_run_lines(found[0][1]):
        console.print(line)
    if members:
        console.print(f"the above is {found[0][0]}, one of {len(found)} members:")
        console.print(members_table(found))


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
    loaded: LoadedRecipe, path: Path, members: list[Member], command: str, console: Console
) -> None:
    """Run the members of a sweep; print them side by side."""
    from pae_framework.launch.run_sweep import SweepLauncher
    from pae_framework.report.table import MemberMetrics, comparison_table
    from pae_framework.report.text import comparison_tables

    SweepLauncher(console).run(loaded, path, members, command)
    results = read_json(path / "results.json")
    rows = [MemberMetrics(found["variant"], found["seed"], found["metrics"]) for found in results]
    for table in comparison_tables(*comparison_table(rows)):
        console.print(table)
    console.print(f"report: {path / 'report.html'}", soft_wrap=True)
