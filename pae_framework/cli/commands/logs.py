"""``pae logs``: show what a stage printed."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pae_framework.cli.arguments import RunArgument, StageArgument
from pae_framework.cli.output import note
from pae_framework.system.printing import print_line


def logs(
    run: RunArgument,
    stage: StageArgument = None,
    rank: Annotated[int, typer.Option(min=0, metavar="K", help="the process; 0: the main one")] = 0,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="continue until the stage ends; Ctrl-C ends it")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, metavar="N", help="show the last N lines")
    ] = 50,
) -> None:
    """Show the end of the log of a stage: by default of the one that runs, else of the last.

    The log of a job holds all its starts; a job that is requeued is followed until its stage ends.
    What Slurm says of the job is printed on stderr. Ctrl-C does not touch the job.

    Examples:
        pae logs runs/quickstart

        pae logs runs/quickstart tokenizer --follow

        pae logs runs/quickstart --rank 3 --lines 200
    """
    from pae_framework.runs.job_logs import Tail, find_log
    from pae_framework.runs.job_logs import follow as followed

    log = find_log(run, stage, rank)
    tail = Tail(log.file)
    for line in tail.last_lines(lines):
        print_line(line)
    if follow:
        sys.stdout.flush()
        for line in followed(log, tail, note):
            print_line(line)
            sys.stdout.flush()
        return
    if rest := tail.unfinished():
        print_line(rest)
    if log.entry is not None and not log.file.is_file():
        job = log.job()
        note(f"{log.file} does not exist; {log.entry.stage}: {job}")
