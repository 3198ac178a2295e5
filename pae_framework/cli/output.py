"""What commands print: tables and JSON on stdout, warnings and errors on stderr."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pae_framework.errors import PaeError, RecipeError

if TYPE_CHECKING:
    from rich.console import Console

    from pae_framework.plugins import Registry

_UNBROKEN = 100_000
"""Table width if stdout is not a terminal, so that no line is broken."""


def print_json(data: Any) -> None:
    """Print JSON, which must be all that the command prints on stdout."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns; on a terminal, long cells wrap."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else _UNBROKEN).print(table)


def console_for_tables() -> Console:
    """A console for tables; 100 columns wide if stdout is not a terminal."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 100)


def command_line() -> str:
    """What the user typed, for the record of a run."""
    return shlex.join(["pae", *sys.argv[1:]])


def warn(message: str) -> None:
    """Print one line on stderr."""
    print(_colored("warning:", "33"), message, file=sys.stderr)


def installed_registry() -> Registry:
    """The installed plugins; those that fail to load are reported on stderr, one line each."""
    from pae_framework.plugins import load_registry

    registry = load_registry()
    for plugin in registry.broken:
        warn(f"plugin {plugin.name} ({plugin.distribution}) does not load: {plugin.error}")
    return registry


def print_error(error: PaeError) -> None:
    """Print an error; for a recipe, every problem on its own line."""
    if isinstance(error, RecipeError):
        count = len(error.problems)
        heading = f"{count} problem{'s' if count != 1 else ''} with the recipe"
        text = "\n".join([heading, *(f"  {problem}" for problem in error.problems)])
    else:
        text = str(error)
    print(_colored("error:", "1;31"), text, file=sys.stderr)


def _colored(text: str, code: str) -> str:
    if os.environ.get("NO_COLOR") or not sys.stderr.isatty():
        return text
    return f"\x1b[{code}m{text}\x1b[0m"
