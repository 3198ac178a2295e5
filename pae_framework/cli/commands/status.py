"""``pae status``: show the progress of a run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from pae_framework.cli.arguments import JsonOption, RunArgument
from pae_framework.cli.output import print_json

if TYPE_CHECKING:
    from rich.table import Table

    from pae_framework.runs.status import StageStatus


def status(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show the state of each stage of a run, and the error of a stage that failed."""
    from pae_framework.runs.status import run_status

    members = run_status(run)
    if as_json:
        print_json({name: [asdict(stage) for stage in rows] for name, rows in members.items()})
        return
    from pae_framework.console import PlainConsole

    console = PlainConsole()
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
