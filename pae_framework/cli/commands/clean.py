"""``pae clean``: remove stages that no run leads to, and leftover smoke runs."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import JsonOption
from pae_framework.cli.output import note, print_answer, print_table, warn
from pae_framework.errors import UsageError


def clean(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="folder that holds the runs; default: runs"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="remove what is listed")] = False,
    as_json: JsonOption = False,
) -> None:
    """List stages that no run leads to and the temporary folders of smoke runs, and remove them.

    A run leads to the stages of its recipe as it ran last; the stages of earlier settings stay
    until they are removed here. Nothing is removed without --yes, and nothing of a run that a
    process or a job works on. Runs outside of FOLDER that use stages of one inside with --stages
    count, unless they were moved.

    Examples:
        pae clean

        pae clean --yes
    """
    from pae_framework.runs.cleaning import find_leftovers, remove

    if folder is not None and not folder.is_dir():
        raise UsageError(f"{folder} is no folder")
    folder = folder or Path("runs")
    leftovers = find_leftovers(folder)
    found = leftovers.found
    removed = [leftover for leftover in found if remove(leftover, folder)] if yes else []
    if as_json:
        answer = [{**asdict(x), "removed": x in removed} for x in found]
        skipped = list(map(asdict, leftovers.skipped))
        print_answer("clean", {"leftovers": answer, "skipped": skipped})
        return
    for run in leftovers.skipped:
        warn(f"{run.path} is skipped: {run.why}")
    if not found:
        note(f"nothing to remove in {folder}")
        return
    rows = [(_size(x.bytes), _shown(x.path), x.why) for x in found]
    print_table(("size", "folder", "why"), rows)
    if not yes:
        command = f"pae clean {shlex.quote(str(folder))} --yes"
        note(f"{_size(sum(x.bytes for x in found))}; `{command}` removes it")
        return
    for left in (x for x in found if x not in removed):
        warn(f"{left.path} is in use by now and stays")
    note(f"removed {_size(sum(x.bytes for x in removed))}")


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _shown(path: str) -> str:
    """Relative to the current folder if it is inside."""
    given = Path(path)
    return str(given.relative_to(Path.cwd()) if given.is_relative_to(Path.cwd()) else given)
