"""The ``pae`` command: lists the commands and prints errors. No logic, no torch."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pae_framework import __version__
from pae_framework.cli.commands.build_reference import build_reference
from pae_framework.cli.commands.cancel import cancel
from pae_framework.cli.commands.cards import cards
from pae_framework.cli.commands.check import check
from pae_framework.cli.commands.check_plugin import check_plugin
from pae_framework.cli.commands.clean import clean
from pae_framework.cli.commands.compare import compare
from pae_framework.cli.commands.copy import copy
from pae_framework.cli.commands.doctor import doctor
from pae_framework.cli.commands.evaluate import evaluate
from pae_framework.cli.commands.export_ema import export_ema
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
from pae_framework.cli.output import DETAIL, Detail, print_error
from pae_framework.cli.shell_completion import complete_parts_of_words
from pae_framework.errors import PaeError, RunError, UsageError
from pae_framework.system.contained import end_process
from pae_framework.system.file_errors import describe_system_error
from pae_framework.system.printing import print_line
from pae_framework.system.standard_streams import (
    lasting_output,
    lost_output,
    no_more_results,
)

GROUPS: Mapping[str, Sequence[Callable[..., None] | str]] = {
    "Recipes": (new_recipe, list_recipes, copy, show, check, fetch, schema),
    "Runs": (run, status, logs, cancel, clean, profiles),
    "Results": (report, cards, compare, evaluate, sample, reconstruct, tune_guidance),
    "Other programs": ("import", "export", "reference"),
    "Plugins and this machine": (
        *(list_plugins, show_plugin, new_plugin, check_plugin),
        doctor,
    ),
}
"""The commands by what they are for; strings name groups of commands."""


class _Group(TyperGroup):
    """Lists its commands with whole summaries."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the sections of the help that list commands; see click."""
        for heading, names in self.sections().items():
            summaries = [(name, self.commands[name].get_short_help_str(200)) for name in names]
            with formatter.section(heading):
                formatter.write_dl(summaries)

    def sections(self) -> Mapping[str, Iterable[str]]:
        """The names of the commands by heading."""
        return {"Commands": self.commands}


OTHER_WORDS: Mapping[str, str] = {
    "resume": "`pae run RECIPE`, the same command again, resumes",
    "train": "`pae run RECIPE` runs all stages",
    "diff": "`pae compare RUN RUN` compares runs; `pae status RUN --recipe RECIPE` shows what "
    "a recipe changes",
    "list": "`pae list-recipes`, `pae list-plugins`; `pae status` lists the runs",
    "ls": "`pae status` lists the runs",
    "validate": "`pae check RECIPE`",
    "stop": "Ctrl-C stops a run, `pae cancel RUN` its jobs",
    "rm": "`pae clean` removes what no run leads to",
    "generate": "`pae sample RUN`",
    "eval": "`pae evaluate RUN`",
}
"""What other programs call our commands, and what to type."""


class _Commands(_Group):
    """The commands of ``pae`` by what they are for."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of the first word; see click.

        Raises:
            UsageError: it is the name of another program's command.
        """
        if args[0] in OTHER_WORDS and args[0] not in self.commands:
            raise UsageError(f"no command {args[0]!r}: {OTHER_WORDS[args[0]]}")
        return super().resolve_command(ctx, args)

    def sections(self) -> Mapping[str, Iterable[str]]:
        """The names of the commands by heading."""
        return {
            heading: [x if isinstance(x, str) else _name_of(x) for x in commands]
            for heading, commands in GROUPS.items()
        }


app = typer.Typer(
    name="pae",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`pae COMMAND --help` describes a command. The documentation is in docs/ of the "
    "sources; start with docs/tutorial.md.",
)


def _group(name: str, text: str) -> typer.Typer:
    group = typer.Typer(cls=_Group, no_args_is_help=True, rich_markup_mode=None, help=text)
    app.add_typer(group, name=name)
    return group


importing = _group("import", "Load weights trained elsewhere into a run.")
exporting = _group("export", "Write a run's weights for use elsewhere.")
reference = _group("reference", "Make what samples are compared with.")


def _name_of(function: Callable[..., None]) -> str:
    return function.__name__.replace("_", "-")


def _add(group: typer.Typer, function: Callable[..., None], name: str | None = None) -> None:
    """Add a command.

    The lines of each paragraph of its docstring are joined, because the help wraps them; examples
    stay as they are.
    """
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    start = next((i for i, x in enumerate(paragraphs) if x.startswith("Example")), len(paragraphs))
    joined = [text.replace("\n", " ") for text in paragraphs[:start]]
    if start < len(paragraphs):  # click keeps the lines of a paragraph after this mark
        joined.append("\b\n" + "\n".join(paragraphs[start:]))
    group.command(name or _name_of(function), help="\n\n".join(joined), epilog=_EPILOG)(function)


_EPILOG = "Options of every command: -q, -v, --no-progress, --debug; see `pae --help`."

for command in (command for commands in GROUPS.values() for command in commands):
    if not isinstance(command, str):
        _add(app, command)
_add(importing, import_pae, "pae")
_add(importing, import_generator, "generator")
_add(exporting, export_pae, "pae")
_add(exporting, export_generator, "generator")
_add(exporting, export_ema, "ema")
_add(reference, build_reference, "build")

complete_parts_of_words()


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
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="only results, warnings and errors"),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="show every update of the progress")
    ] = False,
    no_progress: Annotated[
        bool, typer.Option("--no-progress", help="notes, but no progress")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
) -> None:
    """Train, sample and measure prior-aligned autoencoders.

    These options may stand anywhere on the command line. Results are printed on standard output;
    progress, notes and errors on standard error.
    """
    DETAIL.quiet = quiet
    DETAIL.progress_seconds = None if no_progress else 0.0 if verbose else Detail.progress_seconds


def main() -> None:
    """Run one command.

    The process ends with one of :data:`~pae_framework.errors.EXIT_CODES`. A reader of the output
    that goes away, as in ``pae show RECIPE | head``, changes nothing.
    """
    with lasting_output():
        code = _run_command()
        if lost := lost_output():
            print_error(RunError(lost))
            code = code or RunError.exit_code
    no_more_results()
    end_process(code)


_GENERAL = ("--debug", "-q", "--quiet", "-v", "--verbose", "--no-progress")


def _general_first(words: list[str]) -> list[str]:
    """The options of every command, which may stand anywhere, before the command."""
    end = words.index("--") if "--" in words else len(words)
    own, rest = words[:end], words[end:]
    chosen = [word for word in own if word in _GENERAL]
    return [*chosen, *(word for word in own if word not in _GENERAL), *rest]


def _run_command() -> int:
    """Run the command of the process' arguments; returns the exit code."""
    try:
        app(args=_general_first(sys.argv[1:]), prog_name="pae")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except (PaeError, OSError) as raised:
        error = RunError(describe_system_error(raised)) if isinstance(raised, OSError) else raised
        if "--debug" in sys.argv:  # anywhere on the command line
            traceback.print_exc()
        print_error(error)
        return error.exit_code
    return 0
