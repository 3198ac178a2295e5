"""Carry out a sweep: its members one after the other, over one store of stages."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from pae_framework.errors import UsageError
from pae_framework.files import read_json, write_json, write_text
from pae_framework.launch.local import LocalLauncher
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.sweep import Member, expand
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.environment import describe_environment


@dataclass(frozen=True)
class SweepLauncher:
    """Runs the members of a sweep in this process.

    Several processes may work on one sweep, each on other members (``only``): a stage they share is
    done by one of them while the others wait.
    """

    console: Console

    def members(self, loaded: LoadedRecipe, only: str | None) -> list[Member]:
        """The members whose names match ``only`` (a pattern such as ``ssr-*``), or all.

        Raises:
            UsageError: none matches.
        """
        members = expand(loaded)
        chosen = [m for m in members if only is None or fnmatch.fnmatch(m.name, only)]
        if not chosen:
            names = ", ".join(member.name for member in members)
            raise UsageError(f"--only {only!r} matches no member of the sweep; members: {names}")
        return chosen

    def run(
        self, loaded: LoadedRecipe, directory: Path, members: list[Member], command: list[str]
    ) -> None:
        """Run the members, then write ``results.json`` and the report of all that are finished."""
        write_text(directory / "recipe.yaml", loaded.text)
        write_text(directory / "overrides.txt", "".join(f"{item}\n" for item in loaded.overrides))
        write_text(directory / "resolved.yaml", loaded.resolved_yaml())
        write_json(directory / "environment.json", describe_environment(loaded.registry))
        everyone = [member.name for member in expand(loaded)]
        write_json(
            directory / "run.json",
            {"name": loaded.recipe.name, "command": command, "members": everyone},
        )
        for number, member in enumerate(members, start=1):
            self.console.rule(f"{member.name} ({number} of {len(members)})")
            run = member_directory(directory, member.name)
            LocalLauncher(self.console).run(member.loaded, run, command)
        self.compare(loaded, directory)

    def compare(self, loaded: LoadedRecipe, directory: Path) -> None:
        """Write ``results.json`` and ``report.html`` of the members finished so far."""
        from pae_framework.stages.comparison import write_comparison

        results = collect(directory, loaded)
        write_json(directory / "results.json", results)
        write_comparison(directory, loaded.recipe.description, results)


def member_directory(sweep: Path, name: str) -> RunDirectory:
    """The run of one member, over the sweep's store."""
    return RunDirectory.at(sweep / "members" / name, sweep / "stages")


def collect(directory: Path, loaded: LoadedRecipe) -> list[dict[str, Any]]:
    """Metrics of the members that are evaluated: variant, seed and their list of metrics."""
    found = []
    for member in expand(loaded):
        results = directory / "members" / member.name / "evaluate" / "results.json"
        if results.is_file():
            found.append(
                {
                    "member": member.name,
                    "variant": member.variant,
                    "seed": member.seed,
                    "metrics": read_json(results),
                }
            )
    return found
