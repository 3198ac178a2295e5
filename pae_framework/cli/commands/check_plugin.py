"""``pae check-plugin``: run the conformance suite on a plugin."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

from pae_framework.cli.arguments import JsonOption
from pae_framework.errors import PluginError, UsageError
from pae_framework.system.standard_streams import write_result


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
    image_sizes: Annotated[
        list[int] | None,
        typer.Option(
            "--image-size",
            min=1,
            metavar="PX",
            help="check components that take images at this size; may be repeated",
        ),
    ] = None,
    grids: Annotated[
        list[int] | None,
        typer.Option(
            "--grid",
            min=1,
            metavar="N",
            help="check components that take tokens or latents with N x N of them; may be repeated",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that the components of a plugin do what the engine relies on.

    Runs the tests of `pae_framework.testing` in a new process, and measures how long registration
    takes and what it imports. The exit code is 3 if a test fails, or if the plugin ends the
    process. What it prints goes to stderr.

    Examples:
        pae check-plugin my-encoder

        pae check-plugin my_encoder.py encoder:my_encoder.width=64
    """
    options = [f"--image-size={side}" for side in image_sizes or ()]
    options += [f"--grid={side}" for side in grids or ()]
    options += ["--json"] if as_json else []
    words = [*options, "--", plugin, *(values or ())]
    command = [sys.executable, "-P", "-m", "pae_framework.testing.conformance", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=False)
    if done.returncode == UsageError.exit_code and done.stdout:
        raise UsageError(done.stdout)
    if done.stdout:
        write_result(done.stdout)  # printable, by the process that wrote it
    if not done.stdout or done.returncode not in (0, PluginError.exit_code):
        when = "after" if done.stdout else "before"
        raise PluginError(
            f"{plugin} ended the process of its tests {when} their report, with exit code "
            f"{done.returncode} (negative: a signal); no component may end the process"
        )
    if done.returncode:
        raise typer.Exit(done.returncode)
