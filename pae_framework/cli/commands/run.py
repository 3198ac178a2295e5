"""``pae run``: run a recipe, or resume where it stopped."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pae_framework.cli.arguments import (
    OnOption,
    OverridesArgument,
    PluginOption,
    ProcessesOption,
    RecipeArgument,
    json_option,
)
from pae_framework.cli.output import (
    command_line,
    console_for_tables,
    installed_registry,
    print_answer,
    progress_console,
    resumable,
    tell_loading,
    warn,
)
from pae_framework.cli.shell_completion import complete_stage
from pae_framework.errors import UsageError
from pae_framework.system.printing import print_line
from pae_framework.system.standard_streams import lost_output

if TYPE_CHECKING:
    from pae_framework.launch.start import RunOptions
    from pae_framework.recipe.loaded import LoadedRecipe
    from pae_framework.runs.directory import RunDirectory

_NO_JOB = "no job: every stage is done"


@resumable()
def run(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    plugin: PluginOption = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="directory of the run; default: runs/<recipe name>"),
    ] = None,
    stages: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="folder of the stages, to share another run's stages; default: RUN/stages",
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="sweeps only: run members whose names match a pattern such as 'ssr-*'",
        ),
    ] = None,
    smoke: Annotated[
        bool,
        typer.Option(
            "--smoke",
            help="test the wiring in seconds: small untrained models, generated images, a few "
            "steps per stage, on the CPU, offline; default directory: a new temporary folder",
        ),
    ] = False,
    again: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STAGE",
            autocompletion=complete_stage,
            help="run this stage and all that depend on it from their beginning, although they "
            "are done; may be repeated",
        ),
    ] = None,
    processes: ProcessesOption = None,
    on: OnOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="only print what would run: stages, sizes, steps and epochs, memory, FLOPs; "
            "with a profile also the jobs; needs no data and no weights, writes nothing",
        ),
    ] = False,
    as_json: Annotated[bool, json_option("with --dry-run: print JSON only")] = False,
) -> None:
    """Run a recipe: execute every unfinished stage, then print the results.

    Run the same command again to resume a stopped run. After an edit of the recipe, only the stages
    that changed and those that depend on them run again.

    Missing data and weights are reported before anything starts. Missing weights are downloaded if
    nothing else is missing and HF_HUB_OFFLINE is not set.

    Examples:
        pae run quickstart

        pae run siglip2_full --dry-run

        pae run siglip2_full --smoke

        pae run fashion_mnist generator.train.steps=2000 --run-dir runs/longer

        pae run quickstart sample.steps=5 --run-dir runs/b --stages runs/a/stages

        pae run quickstart --again tokenizer

        pae run siglip2_full --processes auto

        pae run siglip2_full --on cluster --dry-run
    """
    from pae_framework.distributed.place import place_of_process
    from pae_framework.launch.ranks import count_processes, ranks_for
    from pae_framework.launch.start import RunOptions, load_for_run, profile_of, run_recipe

    if (place := place_of_process()) is not None and place.rank > 0:
        if dry_run:
            return
        from pae_framework.launch.follower import follow

        raise typer.Exit(follow(place))
    console = progress_console()
    if dry_run:
        count_processes(processes)
    # Whatever fails, the other processes end.
    with nullcontext() if dry_run else ranks_for(processes, console) as ranks:
        if as_json and not dry_run:
            raise UsageError("--json is for --dry-run; `pae status RUN --json` describes a run")
        loaded = load_for_run(recipe, overrides or (), installed_registry(), plugin or (), run_dir)
        options = RunOptions(
            run_dir, stages, only, smoke, command_line(), tuple(again or ()), processes, on
        )
        if dry_run:
            _print_dry_run(loaded, options, as_json)
            return
        directory = run_recipe(loaded, options, console, warn, ranks)
        profile = profile_of(loaded, options)
        if profile is not None and profile.profile.executor != "debug":
            path = shlex.quote(str(directory.path))
            print_line(f"jobs: `pae status {path}` shows them")
        else:
            _print_results(directory)
        if lost := lost_output():  # what a run makes is in its folder
            warn(lost)


def _print_dry_run(loaded: LoadedRecipe, options: RunOptions, as_json: bool) -> None:
    tell_loading()
    from pae_framework.dry_run.render import dry_run_lines, sweep_lines
    from pae_framework.dry_run.sweep_cost import sweep_cost
    from pae_framework.launch.start import dry_run_recipe, planned_submissions, profile_of

    profile = profile_of(loaded, options)
    jobs = planned_submissions(loaded, options, profile) if profile else []
    members = dry_run_recipe(loaded, options)
    is_sweep, first = loaded.recipe.sweep is not None, next(iter(members))
    if as_json:
        plain = {name: member.plain() for name, member in members.items()}
        answer: dict[str, Any] = plain[first]
        if is_sweep:
            answer = {"total": sweep_cost(members).plain(), "members": plain}
        if profile:
            answer["profile"], answer["jobs"] = profile.name, [job.plain() for job in jobs]
        print_answer("run", answer)
        return
    console = console_for_tables(100)
    if is_sweep:
        for line in sweep_lines(loaded.recipe.name, sweep_cost(members)):
            console.print(line)
        console.print(f"the first member, {first}:")
    for line in dry_run_lines(members[first]):
        console.print(line)
    if profile:
        heading = f"with profile {profile.name} ({profile.profile.executor}), jobs:"
        console.print(heading if jobs else _NO_JOB)
        for job in jobs:
            console.print(f"  {job}")


def _print_results(directory: RunDirectory) -> None:
    """Print the metrics of a run, or of a sweep's variants side by side, and the report's path."""
    from pae_framework.report.table import (
        comparison_table,
        result_rows,
        sweep_members,
        table_notes,
    )
    from pae_framework.report.text import comparison_tables, results_table, verdict_lines
    from pae_framework.runs.directory import REPORT
    from pae_framework.runs.run_metrics import read_comparison, read_metrics
    from pae_framework.runs.run_verdict import read_verdict

    console = console_for_tables()
    if "members" in directory.info:
        columns, rows = comparison_table(sweep_members(read_comparison(directory)))
        for table in comparison_tables(columns, rows):
            console.print(table)
        for text in table_notes(columns):
            console.print(text)
    elif (metrics := read_metrics(directory)) is not None:
        console.print(results_table(result_rows(metrics)))
        if (verdict := read_verdict(directory)) is not None:
            for line in verdict_lines(verdict):
                print_line(line)
    print_line(f"report: {directory.path / REPORT}")
