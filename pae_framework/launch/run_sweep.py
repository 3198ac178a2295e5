"""Run the members of a sweep one after the other; they share stages."""

from __future__ import annotations

import os
from typing import Any

from rich.text import Text

from pae_framework.errors import RunError, StoppedError
from pae_framework.launch.launcher import Launcher
from pae_framework.preflight.requirements import unfinished_stages
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.sweep import Member, expand
from pae_framework.runs.directory import RunDirectory, write_description
from pae_framework.runs.planned import planned_stages
from pae_framework.runs.results import StageResults
from pae_framework.runs.run_metrics import RESULTS, read_metrics_file
from pae_framework.system.console import PlainConsole
from pae_framework.system.files import write_json
from pae_framework.system.printing import printable


def run_sweep(
    loaded: LoadedRecipe,
    directory: RunDirectory,
    members: list[Member],
    launcher: Launcher,
    command: str,
    console: PlainConsole,
) -> None:
    """Run members of a sweep, then write ``results.json`` and the report of all finished members.

    Several processes can run different members of one sweep. If they share a stage, one process
    runs it and the others wait.

    Args:
        loaded: the recipe with the sweep.
        directory: the sweep's directory.
        members: the members to run.
        launcher: runs each member.
        command: what the user typed, for the record.
        console: shows progress.

    Raises:
        RunError: members failed. The other members were still run.
    """
    describe_sweep(loaded, directory, members, command)
    failed = []
    for number, member in enumerate(members, start=1):
        console.rule(f"{member.name} ({number} of {len(members)})")
        try:
            launcher.run(member.loaded, member_directory(directory, member), command)
        except RunError as error:
            if isinstance(error, StoppedError) or error.exit_code != RunError.exit_code:
                raise  # it concerns the other members too
            console.print(Text.assemble((member.name, "bold"), printable(f" failed: {error}")))
            failed.append(member.name)
    compare_members(loaded, directory)
    if failed:
        raise RunError(f"members of the sweep failed: {', '.join(failed)}; see `pae status`")


def describe_sweep(
    loaded: LoadedRecipe, directory: RunDirectory, members: list[Member], command: str
) -> None:
    """Describe a sweep in its directory before members of it run."""
    names = [member.name for member in expand(loaded)]
    info = {"name": loaded.recipe.name, "command": command, "members": names}
    starts = any(unfinished_stages(member.loaded, directory.store) for member in members)
    write_description(directory.path, info, loaded, starts)


def compare_members(loaded: LoadedRecipe, directory: RunDirectory) -> None:
    """Write ``results.json`` and ``report.html`` of the members finished so far."""
    from pae_framework.stages.report import write_comparison

    results, samples_of = _results(loaded, directory)
    write_json(directory.path / RESULTS, results)
    write_comparison(directory, loaded.recipe.description, results, samples_of)


def member_directory(sweep: RunDirectory, member: Member) -> RunDirectory:
    """The run of a member, with the store of its sweep."""
    return RunDirectory.at(sweep.path / "members" / member.name, sweep.store)


def _results(
    loaded: LoadedRecipe, sweep: RunDirectory
) -> tuple[list[dict[str, Any]], dict[str, StageResults]]:
    """Results of the members whose currently planned evaluation is done, and their samples.

    Each result has member, variant, seed, metrics, and the folder of its samples if there are any.
    The samples are by member.
    """
    results, samples_of = [], {}
    for member in expand(loaded):
        run = member_directory(sweep, member)
        stages = planned_stages(member.loaded, run.store)
        if "evaluate" not in stages or not run.stage(stages["evaluate"]).done:
            continue
        entry: dict[str, Any] = {
            "member": member.name,
            "variant": member.variant,
            "seed": member.seed,
            "metrics": read_metrics_file(run.results(stages["evaluate"]).file(RESULTS)),
        }
        if "sample" in stages:
            samples = samples_of[member.name] = run.results(stages["sample"])
            entry["samples"] = os.path.relpath(samples.folder, sweep.path)
        results.append(entry)
    return results, samples_of
