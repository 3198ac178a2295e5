"""Carry out a sweep: its members one after the other, over one store of stages."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from pae_framework.errors import RunError, StoppedError
from pae_framework.files import read_json, write_json
from pae_framework.launch.local import LocalLauncher
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.sweep import Member, expand
from pae_framework.runs.directory import RunDirectory, write_description
from pae_framework.runs.plan import plan


@dataclass(frozen=True)
class SweepLauncher:
    """Runs the members of a sweep in this process.

    Several processes may work on one sweep, each on other members (``only``): a stage they share is
    done by one of them while the others wait.
    """

    console: Console

    def run(
        self, loaded: LoadedRecipe, directory: Path, members: list[Member], command: str
    ) -> None:
        """Run the members, then write ``results.json`` and the report of all that are finished.

        Raises:
            RunError: members failed; the others were run all the same.
        """
        everyone = [member.name for member in expand(loaded)]
        info = {"name": loaded.recipe.name, "command": command, "members": everyone}
        write_description(directory, info, loaded)
        failed = []
        for number, member in enumerate(members, start=1):
            self.console.rule(f"{member.name} ({number} of {len(members)})")
            run = member_directory(directory, member.name)
            try:
                LocalLauncher(self.console).run(member.loaded, run, command)
            except StoppedError:
                raise
            except RunError as error:
                self.console.print(f"[bold]{member.name}[/bold] failed: {error}", highlight=False)
                failed.append(member.name)
        self.compare(loaded, directory)
        if failed:
            raise RunError(f"members of the sweep failed: {', '.join(failed)}; see `pae status`")

    def compare(self, loaded: LoadedRecipe, directory: Path) -> None:
        """Write ``results.json`` and ``report.html`` of the members finished so far."""
        from pae_framework.evaluation.sweep_report import write_comparison

        results = collect(directory, loaded)
        write_json(directory / "results.json", results)
        write_comparison(directory, loaded.recipe.description, results)


def member_directory(sweep: Path, name: str) -> RunDirectory:
    """The run of one member, over the sweep's store."""
    return RunDirectory.at(sweep / "members" / name, sweep / "stages")


def collect(directory: Path, loaded: LoadedRecipe) -> list[dict[str, Any]]:
    """What the members found whose evaluation, as planned now, is done.

    For each: member, variant, seed, metrics, and the folder of its samples if it drew any.
    """
    found = []
    for member in expand(loaded):
        run = member_directory(directory, member.name)
        stages = {stage.name: stage for stage in plan(member.loaded.recipe, loaded.registry)}
        if "evaluate" not in stages or not run.stage(stages["evaluate"]).done:
            continue
        entry: dict[str, Any] = {
            "member": member.name,
            "variant": member.variant,
            "seed": member.seed,
            "metrics": read_json(run.stage(stages["evaluate"]).path / "results.json"),
        }
        if "sample" in stages:
            samples = run.stage(stages["sample"]).path
            entry["samples"] = os.path.relpath(samples, directory)
        found.append(entry)
    return found
