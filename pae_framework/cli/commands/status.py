"""``pae status``: show the progress of a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pae_framework.cli.arguments import JsonOption
from pae_framework.cli.output import print_json

if TYPE_CHECKING:
    from rich.table import Table

    from pae_framework.runs.status import StageStatus


def status(
    run: Annotated[Path, typer.Argument(help="directory of a run or a sweep")],
    as_json: JsonOption = False,
) -> None:
    """Show each stage of a run: done, running, stopped, failed (with the reason) or pending."""
    from pae_framework.runs.status import run_status

    members = run_status(run)
    if as_json:
        print_json({name: [asdict(stage) for stage in rows] for name, rows in members.items()})
        return
    from rich.console import Console

    console = Console(highlight=False)
    for name, rows in members.items():
        console.print(_table(name, rows))


def _table(name: str, rows: list[StageStatus]) -> Table:
    from rich.table import Table

    table = Table(title=name, title_justify="left")
    for heading in ("stage", "state", "progress", "time", "folder"):
        table.add_column(heading)
    for row in rows:
        table.add_row(row.stage, row.state, row.progress, row.time, row.folder)
        if row.error:
            table.add_row("", row.error)
    return table
