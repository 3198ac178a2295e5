"""``pae doctor``: whether this machine and what is installed are fit for runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import JsonOption, PluginOption
from pae_framework.cli.output import print_answer, registry_with
from pae_framework.cli.shell_completion import complete_run
from pae_framework.errors import PluginError, RecipeError
from pae_framework.system.printing import print_line

_MARKS = {"ok": "ok     ", "warning": "warning", "error": "error  "}


def doctor(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            autocompletion=complete_run,
            help="also compare with the environment of this run",
        ),
    ] = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Examine this machine, what is installed, and the plugins; say what to do.

    Exit code 1 if something must be mended; warnings are none.
    """
    from pae_framework.preflight.health import Finding, examine
    from pae_framework.preflight.machine import this_machine

    registry, recorded, problems = registry_with(plugin or ()), None, []
    if run is not None:
        from pae_framework.runs.opened import open_directory, open_run

        recorded = open_directory(run).environment
        try:
            registry = open_run(run, registry).loaded.registry  # with its plugin files
        except (RecipeError, PluginError) as error:
            text = f"the recipe of {run} does not load here: {error}"
            problems = [Finding("run", "error", text, f"`pae check {run}/resolved.yaml` says more")]
    findings = [*examine(registry, this_machine(), recorded), *problems]
    broken = any(finding.level == "error" for finding in findings)
    if as_json:
        found = [asdict(finding) for finding in findings]
        print_answer("doctor", {"healthy": not broken, "findings": found})
    else:
        for finding in findings:
            print_line(f"{_MARKS[finding.level]}  {finding.topic}: {finding.text}")
            if finding.remedy:
                print_line(f"         -> {finding.remedy}")
    if broken:
        raise typer.Exit(1)
