"""``pae check-plugin``: run the conformance suite on a plugin."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

from pae_framework.cli.arguments import JsonOption


def check_plugin(
    plugin: Annotated[
        str,
        typer.Argument(metavar="DIST|FILE", help="an installed distribution, or a Python file"),
    ],
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KIND:NAME.KEY=VALUE",
            help="parameters to check a component with; default: its smoke version",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that the components of a plugin do what the engine relies on.

    Runs the tests of `pae_framework.testing` in a new process, and measures how long registration
    takes and what it imports. The exit code is 3 if a test fails.

    Examples:
        pae check-plugin my-encoder

        pae check-plugin my_encoder.py encoder:my_encoder.width=64
    """
    words = [plugin, *(values or ()), *(["--json"] if as_json else [])]
    command = [sys.executable, "-m", "pae_framework.testing.conformance", *words]
    sys.stdout.flush()
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode if done.returncode > 0 else 1)
