"""What commands print: tables and JSON on stdout, warnings and errors on stderr."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from pae_framework.errors import PaeError, Problem, RecipeError, StoppedError, UsageError
from pae_framework.system.files import file_problem
from pae_framework.system.printing import printable
from pae_framework.system.standard_streams import results_take_unicode, write_result
from pae_framework.system.stopping import STOP_SIGNALS, interrupted_by, stopped_by

if TYPE_CHECKING:
    from pae_framework.registry import Registry
    from pae_framework.system.console import PlainConsole

UNBROKEN = 100_000
"""Table width if stdout is not a terminal, so that no line is broken."""


def print_answer(command: str, answer: Mapping[str, Any]) -> None:
    """Print the JSON document of a command, with its name and version as ``schema``.

    Within a version, keys are only added.
    """
    print_json({"schema": f"{command}/1", **answer})


def plain_problem(problem: Problem) -> dict[str, Any]:
    """A problem in JSON types, with its place if it is in a file."""
    file, _, position = problem.where.partition(":")
    line, _, column = position.partition(":")
    place = None
    if line.isdigit() and column.isdigit():
        place = {"file": str(Path(file).absolute()), "line": int(line), "column": int(column)}
    return {**asdict(problem), "place": place}


def print_json(data: Any) -> None:
    """Print JSON, which must be all that the command prints on stdout."""
    text = json.dumps(data, indent=2, ensure_ascii=not results_take_unicode())
    shown = "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    write_result(f"{shown}\n")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns; on a terminal, long cells wrap."""
    from pae_framework.system.console import PlainTable

    table = PlainTable(*headings)
    for row in rows:
        table.add_row(*row)
    console_for_tables().print(table)


def wrapped(text: str, indent: str = "") -> list[str]:
    """The text in lines of 80 columns; words, such as key paths and names of files, stay whole."""
    return wrap(
        text,
        80,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


@dataclass
class Detail:
    """How much a command tells on standard error besides warnings and errors."""

    quiet: bool = False
    """Neither notes nor progress."""
    progress_seconds: float | None = 10.0
    """See :class:`~pae_framework.system.console.PlainConsole`."""


DETAIL = Detail()
"""What the options before the command say."""


def progress_console() -> PlainConsole:
    """The console for progress and notes: standard error."""
    from pae_framework.system.console import PlainConsole

    return PlainConsole(DETAIL.progress_seconds, stderr=True, quiet=DETAIL.quiet)


def tell_loading() -> None:
    """Say that torch is about to be imported, which takes seconds."""
    if "torch" not in sys.modules:
        note("loading PyTorch ...")


def console_for_tables(width: int = UNBROKEN) -> PlainConsole:
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
    """Print one line on stderr, beside what the command prints on stdout; not with -q."""
    if not DETAIL.quiet:
        _print_plain(message)


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


@contextmanager
def resumable() -> Iterator[None]:
    """A command that can be repeated to resume: a signal that asks to stop interrupts it.

    Also where no training or sampling waits for such signals.

    Raises:
        StoppedError: a signal came.
    """
    ended_by = (number for number in STOP_SIGNALS if number != signal.SIGINT)
    heeded = [number for number in ended_by if signal.getsignal(number) != signal.SIG_IGN]
    with interrupted_by(heeded):
        try:
            yield
        except KeyboardInterrupt as error:
            raise stopped_by(error) from error


def print_error(error: PaeError) -> None:
    """Print an error; for a recipe, every problem on its own line. A stop is none."""
    if isinstance(error, StoppedError):
        _print_plain(f"{error}\nto resume: {command_line()}")
        return
    if isinstance(error, RecipeError):
        count = len(error.problems)
        heading = f"{count} problem{'s' if count != 1 else ''} with {error.subject}"
        text = "\n".join([heading, *(f"  {problem}" for problem in error.problems)])
    else:
        text = str(error)
    _print_error_line("error:", "1;31", text)


def _print_plain(text: str) -> None:
    sys.stderr.write(f"{printable(text)}\n")


def _print_error_line(word: str, color: str, text: str) -> None:
    sys.stderr.write(f"{_colored(word, color)} {printable(text)}\n")


def _colored(text: str, code: str) -> str:
    if os.environ.get("NO_COLOR") or not sys.stderr.isatty():
        return text
    return f"\x1b[{code}m{text}\x1b[0m"
