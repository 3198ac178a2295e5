"""The ``pae`` command: one line for each command, and how errors end. No logic, no torch."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from pae_framework import __version__
from pae_framework.cli.commands.check import check
from pae_framework.cli.commands.copy import copy
from pae_framework.cli.commands.export_generator import export_generator
from pae_framework.cli.commands.export_pae import export_pae
from pae_framework.cli.commands.fetch import fetch
from pae_framework.cli.commands.import_generator import import_generator
from pae_framework.cli.commands.import_pae import import_pae
from pae_framework.cli.commands.list_plugins import list_plugins
from pae_framework.cli.commands.list_recipes import list_recipes
from pae_framework.cli.commands.reconstruct import reconstruct
from pae_framework.cli.commands.report import report
from pae_framework.cli.commands.run import run
from pae_framework.cli.commands.sample import sample
from pae_framework.cli.commands.show import show
from pae_framework.cli.commands.show_plugin import show_plugin
from pae_framework.cli.commands.status import status
from pae_framework.cli.output import print_error
from pae_framework.errors import PaeError, RunError

app = typer.Typer(
    name="pae",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run)
app.command("check")(check)
app.command("fetch")(fetch)
app.command("show")(show)
app.command("list-recipes")(list_recipes)
app.command("copy")(copy)
app.command("status")(status)
app.command("sample")(sample)
app.command("reconstruct")(reconstruct)
app.command("report")(report)
app.command("list-plugins")(list_plugins)
app.command("show-plugin")(show_plugin)

importing = typer.Typer(no_args_is_help=True, help="Make a run of weights trained elsewhere.")
importing.command("pae")(import_pae)
importing.command("generator")(import_generator)
app.add_typer(importing, name="import")
exporting = typer.Typer(no_args_is_help=True, help="Write a run's weights for use elsewhere.")
exporting.command("pae")(export_pae)
exporting.command("generator")(export_generator)
app.add_typer(exporting, name="export")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pae-framework {__version__}")
        raise typer.Exit


@app.callback()
def pae(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print the version"),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks of errors")] = False,
) -> None:
    """Train, sample and measure prior-aligned autoencoders."""


def _of_a_path(error: OSError) -> PaeError:
    """What the system said of a file or folder, as a message; anything else is not for users."""
    if error.filename is None:
        raise error
    return RunError(f"{error.filename}: {error.strerror}")


def main() -> None:
    """Run one command.

    Exit codes: 0 fine, 1 a run failed, 2 the recipe or the usage is wrong, 3 a plugin is broken.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(args=arguments, prog_name="pae")
    except (PaeError, OSError) as raised:
        error = raised if isinstance(raised, PaeError) else _of_a_path(raised)
        if "--debug" in sys.argv:  # wherever it stands on the command line
            traceback.print_exc()
        print_error(error)
        sys.exit(error.exit_code)
