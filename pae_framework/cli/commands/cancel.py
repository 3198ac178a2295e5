"""``pae cancel``: end the jobs of a run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from pae_framework.cli.arguments import RunArgument, StageArgument
from pae_framework.errors import UsageError
from pae_framework.system.printing import print_line

if TYPE_CHECKING:
    from pae_framework.runs.canceling import UnendedJob


def cancel(
    run: RunArgument,
    stage: StageArgument = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
) -> None:
    """Cancel the jobs of a run that wait or run, or only those of a stage.

    A training that runs saves a checkpoint first, and the job is not requeued. The command of the
    run submits what is unfinished again. Jobs of other runs are left alone.

    Examples:
        pae cancel runs/quickstart

        pae cancel runs/quickstart generator --yes
    """
    from pae_framework.runs.canceling import cancel as cancel_jobs
    from pae_framework.runs.canceling import unended_jobs
    from pae_framework.runs.directory import RunDirectory
    from pae_framework.runs.job_status import submitted_from
    from pae_framework.runs.jobs import resuming

    chosen = unended_jobs(run, stage)
    for job in chosen.shared:
        sweep = submitted_from(run)
        print_line(f"left alone, because other members need it: {_line(job)} (of {sweep})")
    if not chosen.jobs:
        what = "no job" if stage is None else f"no job of stage {stage}"
        print_line(f"nothing to cancel: {what} of {run} waits or runs")
        return
    for job in chosen.jobs:
        print_line(_line(job))
        for line in _dependents(job, {job.status.id for job in chosen.jobs}):
            print_line(line)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("nothing was canceled; add --yes to cancel these jobs unasked")
        typer.confirm(f"Cancel {_count(len(chosen.jobs))}?", abort=True)
    cancel_jobs(run, chosen.jobs)
    print_line(f"canceled {_count(len(chosen.jobs))}; a training that runs saves first")
    command = RunDirectory.at(submitted_from(run)).info["command"]
    print_line(f"to resume: {resuming(command)}")


def _line(job: UnendedJob) -> str:
    from pae_framework.runs.job_status import named

    names = named([entry.stage for entry in job.stages])
    member = f"{job.stages[0].member}: " if job.stages[0].member else ""
    progress = f"; progress: {job.progress}" if job.progress else ""
    return f"{member}{names}: {job.status}{progress}"


def _dependents(job: UnendedJob, canceled: set[str]) -> Iterator[str]:
    """Jobs that Slurm ends besides."""
    if others := [other for other in job.dependents if other not in canceled]:
        yield f"  Slurm cancels with it what waits for it: job {', '.join(others)}"


def _count(jobs: int) -> str:
    return f"{jobs} job{'' if jobs == 1 else 's'}"
