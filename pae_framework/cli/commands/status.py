"""``pae status``: show the progress of a run."""

from __future__ import annotations

from dataclasses import asdict

from pae_framework.cli.arguments import JsonOption, RunArgument
from pae_framework.cli.output import print_json, print_table
from pae_framework.system.printing import print_line


def status(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show the state of each stage of a run, and the error of a stage that failed."""
    from pae_framework.runs.status import run_status

    members = run_status(run)
    if as_json:
        print_json({name: [asdict(stage) for stage in rows] for name, rows in members.items()})
        return
    for name, rows in members.items():
        print_line(name)
        columns = [(row.stage, row.state, row.progress, row.time, row.folder) for row in rows]
        print_table(("stage", "state", "progress", "time", "folder"), columns)
        for row in rows:
            if row.error:
                print_line(f"{row.stage}: {row.error}")
        print_line("")
