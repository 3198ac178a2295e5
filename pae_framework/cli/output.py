"""What commands print: tables and JSON on stdout, warnings and errors on stderr."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pae_framework.errors import PaeError, RecipeError, UsageError
from pae_framework.system.files import file_problem
from pae_framework.system.printing import printable
from pae_framework.system.standard_streams import write_result

if TYPE_CHECKING:
    from pae_framework.registry import Registry
    from pae_framework.system.console import PlainConsole

_UNBROKEN = 100_000
"""Table width if stdout is not a terminal, so that no line is broken."""


def print_json(data: Any) -> None:
    """Print JSON, which must be all that the command prints on stdout."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    shown = "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    write_result(f"{shown}\n")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns; on a terminal, long cells wrap."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console_for_tables(_UNBROKEN).print(table)


def console_for_tables(width: int = 100) -> PlainConsole:
    """A console for tables; of this width if stdout is not a terminal."""
    from pae_framework.system.console import PlainConsole

    return PlainConsole(width=None if sys.stdout.isatty() else width)


def command_line() -> str:
    """What the user typed, for the record of a run."""
    return shlex.join(["pae", *sys.argv[1:]])


def warn(message: str) -> None:
    """Print one line on stderr."""
    _print_error_line("warning:", "33", message)


def note(message: str) -> None:
    """Print one line on stderr, beside what the command prints on stdout."""
    sys.stderr.write(f"{printable(message)}\n")


def installed_registry(files: Iterable[Path] = ()) -> Registry:
    """The installed plugins, and those of files.

    Those that fail to load are reported on stderr, one line each.

    Raises:
        UsageError: there is no such file.
    """
    registry = registry_with(files)
    for plugin in registry.broken:
        warn(f"plugin {plugin.name} ({plugin.distribution}) does not load: {plugin.error}")
    return registry


def registry_with(files: Iterable[Path]) -> Registry:
    """The installed plugins, and those of files; nothing is reported.

    Raises:
        UsageError: there is no such file.
    """
    from pae_framework.plugins import load_registry, with_files

    paths = [path.expanduser() for path in files]
    for path in paths:
        if (problem := file_problem(path)) is not None:
            raise UsageError(f"--plugin: {problem}")
    return with_files(load_registry(), paths)


def print_error(error: PaeError) -> None:
    """Print an error; for a recipe, every problem on its own line."""
    if isinstance(error, RecipeError):
        count = len(error.problems)
        heading = f"{count} problem{'s' if count != 1 else ''} with {error.subject}"
        text = "\n".join([heading, *(f"  {problem}" for problem in error.problems)])
    else:
        text = str(error)
    _print_error_line("error:", "1;31", text)


def _print_error_line(word: str, color: str, text: str) -> None:
    sys.stderr.write(f"{_colored(word, color)} {printable(text)}\n")


def _colored(text: str, code: str) -> str:
    if os.environ.get("NO_COLOR") or not sys.stderr.isatty():
        return text
    return f"\x1b[{code}m{text}\x1b[0m"
