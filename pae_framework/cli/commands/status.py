"""``pae status``: show the progress of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

import typer

from pae_framework.cli.arguments import JsonOption, OverridesArgument, RunArgument
from pae_framework.cli.output import installed_registry, print_json, print_table
from pae_framework.cli.shell_completion import complete_recipe
from pae_framework.system.printing import print_line

if TYPE_CHECKING:
    from pae_framework.runs.status import StageStatus

_SHOWN = 5
"""Changes of a stage that are shown."""


def status(
    run: RunArgument,
    overrides: OverridesArgument = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE",
            help="compare with this recipe; default: the file that the run was started with",
            autocompletion=complete_recipe,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the state of each stage of a run, and the error of a stage that failed.

    A stage is stale if it ran, but `pae run` would run it again: its settings, code, images or
    weights, or a stage that it reads, are no longer those it ran with. Each change is shown as
    key (old -> new).

    Examples:
        pae status runs/quickstart

        pae status runs/quickstart generator.train.steps=800

        pae status runs/mine --recipe mine.yaml
    """
    from pae_framework.runs.looking import looking_once
    from pae_framework.runs.status import Comparison, run_status

    compared = Comparison(installed_registry(), recipe, tuple(overrides or ()))
    with looking_once():
        members = run_status(run, compared)
    if as_json:
        print_json({name: [asdict(stage) for stage in rows] for name, rows in members.items()})
        return
    for name, rows in members.items():
        print_line(name)
        columns = [
            (row.stage, row.state, row.progress, row.time, Path(row.folder).name) for row in rows
        ]
        print_table(("stage", "state", "progress", "time", "folder"), columns)
        for line in _details(rows):
            print_line(line)
        print_line("")


def _details(rows: Sequence[StageStatus]) -> Iterator[str]:
    """Where the stages are, what works on them, what failed, and why stages are stale."""
    if rows:
        yield f"folders in {os.path.relpath(Path(rows[0].folder).parent)}"
    for row in rows:
        if row.error:
            yield f"{row.stage}: {row.error}"
        facts = [row.process, *row.changes[:_SHOWN]]
        if len(row.changes) > _SHOWN:
            facts.append(f"and {len(row.changes) - _SHOWN} more changes")
        if row.stale_inputs:
            facts.append(f"reads {', '.join(row.stale_inputs)}, which changed")
        for fact in (*facts, row.outlook):
            if fact:
                yield from _wrapped(f"{row.stage}: {fact}")


def _wrapped(text: str) -> list[str]:
    """The text in lines of 80 columns; words, such as key paths and names of files, stay whole."""
    return wrap(text, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
