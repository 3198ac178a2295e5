"""The ``pae`` command: lists the commands and prints errors. No logic, no torch."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer

from pae_framework import __version__
from pae_framework.cli.commands.build_reference import build_reference
from pae_framework.cli.commands.cancel import cancel
from pae_framework.cli.commands.cards import cards
from pae_framework.cli.commands.check import check
from pae_framework.cli.commands.check_plugin import check_plugin
from pae_framework.cli.commands.compare import compare
from pae_framework.cli.commands.copy import copy
from pae_framework.cli.commands.doctor import doctor
from pae_framework.cli.commands.evaluate import evaluate
from pae_framework.cli.commands.export_generator import export_generator
from pae_framework.cli.commands.export_pae import export_pae
from pae_framework.cli.commands.fetch import fetch
from pae_framework.cli.commands.import_generator import import_generator
from pae_framework.cli.commands.import_pae import import_pae
from pae_framework.cli.commands.list_plugins import list_plugins
from pae_framework.cli.commands.list_recipes import list_recipes
from pae_framework.cli.commands.logs import logs
from pae_framework.cli.commands.new_plugin import new_plugin
from pae_framework.cli.commands.new_recipe import new_recipe
from pae_framework.cli.commands.profiles import profiles
from pae_framework.cli.commands.reconstruct import reconstruct
from pae_framework.cli.commands.report import report
from pae_framework.cli.commands.run import run
from pae_framework.cli.commands.sample import sample
from pae_framework.cli.commands.schema import schema
from pae_framework.cli.commands.show import show
from pae_framework.cli.commands.show_plugin import show_plugin
from pae_framework.cli.commands.status import status
from pae_framework.cli.commands.tune_guidance import tune_guidance
from pae_framework.cli.output import print_error, warn
from pae_framework.errors import PaeError, RunError
from pae_framework.system.contained import end_process
from pae_framework.system.file_errors import describe_system_error
from pae_framework.system.printing import print_line
from pae_framework.system.standard_streams import lasting_output, lost_output

app = typer.Typer(
    name="pae",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
importing = typer.Typer(no_args_is_help=True, help="Load weights trained elsewhere into a run.")
app.add_typer(importing, name="import")
exporting = typer.Typer(no_args_is_help=True, help="Write a run's weights for use elsewhere.")
app.add_typer(exporting, name="export")
reference = typer.Typer(no_args_is_help=True, help="Make what samples are compared with.")
app.add_typer(reference, name="reference")


def _add(group: typer.Typer, function: Callable[..., None], name: str | None = None) -> None:
    """Add a command. The lines of its docstring are joined, because the terminal wraps its help."""
    name = name or function.__name__.replace("_", "-")
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    joined = (text if "\n    " in text else text.replace("\n", " ") for text in paragraphs)
    group.command(name, help="\n\n".join(joined))(function)


for command in (
    *(new_recipe, run, check, fetch, show, list_recipes, copy),
    *(status, logs, cancel),
    *(sample, tune_guidance, reconstruct, evaluate, cards, compare, report),
    *(list_plugins, show_plugin, new_plugin, check_plugin, schema, profiles, doctor),
):
    _add(app, command)
_add(importing, import_pae, "pae")
_add(importing, import_generator, "generator")
_add(exporting, export_pae, "pae")
_add(exporting, export_generator, "generator")
_add(reference, build_reference, "build")


def _print_version(wanted: bool) -> None:
    if wanted:
        print_line(f"pae-framework {__version__}")
        raise typer.Exit


@app.callback()
def pae(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print the version"),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
) -> None:
    """Train, sample and measure prior-aligned autoencoders."""


def main() -> None:
    """Run one command.

    Exit codes: 0 done, 1 a run failed or training was stopped, 2 wrong recipe or usage, 3 a
    component's code cannot be loaded, 130 stopped by Ctrl-C outside of training.

    A reader of the output that goes away, as in ``pae show RECIPE | head``, changes nothing.
    """
    with lasting_output():
        code = _run_command()
        if lost := lost_output():
            if "run" in sys.argv[1:2]:  # what a run makes is in its folder
                warn(lost)
            else:
                print_error(RunError(lost))
                code = code or RunError.exit_code
    end_process(code)


def _run_command() -> int:
    """Run the command of the process' arguments; returns the exit code."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(args=arguments, prog_name="pae")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except (PaeError, OSError) as raised:
        error = RunError(describe_system_error(raised)) if isinstance(raised, OSError) else raised
        if "--debug" in sys.argv:  # anywhere on the command line
            traceback.print_exc()
        print_error(error)
        return error.exit_code
    return 0
