"""``pae doctor``: whether this machine and what is installed are fit for runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from pae_framework.cli.arguments import JsonOption
from pae_framework.cli.output import print_json
from pae_framework.system.printing import print_line

SCHEMA = "doctor/1"
"""Name and version of the JSON document; keys are only added within a version."""
_MARKS = {"ok": "ok     ", "warning": "warning", "error": "error  "}


def doctor(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="also compare with the environment of this run"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Examine this machine, what is installed, and the plugins; say what to do.

    Exit code 1 if something must be mended; warnings are none.
    """
    from pae_framework.plugins import load_registry
    from pae_framework.preflight.health import examine
    from pae_framework.preflight.machine import this_machine

    findings = list(examine(load_registry(), this_machine(), _recorded(run)))
    broken = any(finding.level == "error" for finding in findings)
    if as_json:
        found = [asdict(finding) for finding in findings]
        print_json({"schema": SCHEMA, "healthy": not broken, "findings": found})
    else:
        for finding in findings:
            print_line(f"{_MARKS[finding.level]}  {finding.topic}: {finding.text}")
            if finding.remedy:
                print_line(f"         -> {finding.remedy}")
    if broken:
        raise typer.Exit(1)


def _recorded(run: Path | None) -> dict[str, Any] | None:
    from pae_framework.runs.opened import open_directory

    return None if run is None else open_directory(run).environment
