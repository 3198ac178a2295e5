"""Run the members of a sweep one after the other; they share stages."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from pae_framework.errors import RunError, StoppedError
from pae_framework.launch.launcher import Launcher
from pae_framework.preflight.requirements import unfinished_stages
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.sweep import Member, expand
from pae_framework.runs.directory import RunDirectory, write_description
from pae_framework.runs.later_stages import seconds_of_runs
from pae_framework.runs.looking import looking_once
from pae_framework.runs.plan import PlannedStage
from pae_framework.runs.planned import planned_stages
from pae_framework.runs.run_metrics import RESULTS, read_metrics_file
from pae_framework.system.console import PlainConsole
from pae_framework.system.durations import format_seconds
from pae_framework.system.files import write_json
from pae_framework.system.printing import printable

if TYPE_CHECKING:
    from pae_framework.stages.report import FinishedMember


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
    plans = _plans(members, directory.store)
    failed = []
    for number, member in enumerate(members, start=1):
        left = seconds_of_runs(plans[number - 1 :], directory.store)
        about = "" if left is None else f", about {format_seconds(left)} left for all"
        console.rule(f"{member.name} ({number} of {len(members)}{about})")
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


@looking_once()
def _plans(members: list[Member], store: Path) -> list[tuple[Recipe, Mapping[str, PlannedStage]]]:
    return [(each.loaded.recipe, planned_stages(each.loaded, store)) for each in members]


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
    from pae_framework.stages.report import write_comparison  # loads torch

    finished = list(_finished_members(loaded, directory))
    write_json(directory.path / RESULTS, [_result(each, directory) for each in finished])
    write_comparison(directory, loaded, finished)


def member_directory(sweep: RunDirectory, member: Member) -> RunDirectory:
    """The run of a member, with the store of its sweep."""
    return RunDirectory.at(sweep.path / "members" / member.name, sweep.store)


def _finished_members(loaded: LoadedRecipe, sweep: RunDirectory) -> Iterator[FinishedMember]:
    """The members whose currently planned evaluation is done."""
    from pae_framework.stages.report import FinishedMember  # loads torch

    for member in expand(loaded):
        run = member_directory(sweep, member)
        stages = planned_stages(member.loaded, run.store)
        if "evaluate" in stages and run.stage(stages["evaluate"]).done:
            metrics = read_metrics_file(run.results(stages["evaluate"]).file(RESULTS))
            yield FinishedMember(member, run, stages, metrics)


def _result(finished: FinishedMember, sweep: RunDirectory) -> dict[str, Any]:
    """Member, variant, seed, metrics, and the folder of its samples if there are any."""
    member = finished.member
    result = {
        "member": member.name,
        "variant": member.variant,
        "seed": member.seed,
        "metrics": finished.metrics,
    }
    if finished.samples is not None:
        result["samples"] = os.path.relpath(finished.samples.folder, sweep.path)
    return result
