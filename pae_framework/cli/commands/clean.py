"""``pae clean``: remove stages that no run leads to, and leftover smoke runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import JsonOption
from pae_framework.cli.output import note, print_answer, print_table, warn


def clean(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="folder that holds the runs")
    ] = Path("runs"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="remove what is listed")] = False,
    as_json: JsonOption = False,
) -> None:
    """List stages that no run leads to and the temporary folders of smoke runs, and remove them.

    A run leads to the stages of its recipe as it ran last; the stages of earlier settings stay
    until they are removed here. Nothing is removed without --yes, and nothing of a run that a
    process or a job works on. Runs outside of FOLDER that share stages with --stages are unknown.

    Examples:
        pae clean

        pae clean --yes
    """
    from pae_framework.runs.cleaning import find_leftovers, remove

    found = find_leftovers(folder)
    removed = [leftover for leftover in found if remove(leftover)] if yes else []
    if as_json:
        answer = [{**asdict(x), "removed": x in removed} for x in found]
        print_answer("clean", {"leftovers": answer})
        return
    if not found:
        note(f"nothing to remove in {folder}")
        return
    rows = [(_size(x.bytes), _shown(x.path), x.why) for x in found]
    print_table(("size", "folder", "why"), rows)
    if not yes:
        note(f"{_size(sum(x.bytes for x in found))}; `pae clean {folder} --yes` removes it")
        return
    for left in (x for x in found if x not in removed):
        warn(f"{left.path} is in use and stays")
    note(f"removed {_size(sum(x.bytes for x in removed))}")


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _shown(path: str) -> str:
    """Relative to the current folder if it is inside."""
    given = Path(path)
    return str(given.relative_to(Path.cwd()) if given.is_relative_to(Path.cwd()) else given)
