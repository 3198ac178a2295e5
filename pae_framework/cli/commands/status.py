"""``pae status``: show the progress of a run, or list the runs of a folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pae_framework.cli.arguments import JsonOption, OverridesArgument, PluginOption
from pae_framework.cli.output import (
    installed_registry,
    note,
    print_answer,
    print_table,
    warn,
    wrapped,
)
from pae_framework.cli.shell_completion import complete_recipe, complete_run
from pae_framework.errors import PaeError, UsageError
from pae_framework.system.printing import print_line

if TYPE_CHECKING:
    from pae_framework.report.verdict import Verdict
    from pae_framework.runs.job_status import JobStatus
    from pae_framework.runs.stage_status import StageStatus

_SHOWN = 5
"""Changes of a stage that are shown."""


def status(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            help="directory of a run or a sweep; default: list the runs of runs/",
            show_default=False,
            autocompletion=complete_run,
        ),
    ] = None,
    overrides: OverridesArgument = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE",
            help="compare with this recipe; default: the file that the run was started with",
            autocompletion=complete_recipe,
        ),
    ] = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the state of each stage of a run, its job, and the error of a stage that failed.

    Without RUN, list the runs of runs/: state, stages that are done, age and one metric.

    A stage is stale if it ran, but `pae run` would run it again: its settings, code, images or
    weights, or a stage that it reads, are no longer those it ran with. Each change is shown as
    key (old -> new).

    If the evaluator `manifold` is done, a verdict follows: whether the latent space is easy to
    diffuse in, and the diagnostics beside their references.

    For stages in jobs, Slurm's state and reason are shown, and what they mean; for a stage that
    runs, its speed and the time left. Of a submitted sweep, each member is one line; `pae status
    SWEEP/members/NAME` shows its stages.

    Examples:
        pae status

        pae status runs/quickstart

        pae status runs/quickstart generator.train.steps=800

        pae status runs/mine --recipe mine.yaml
    """
    from pae_framework.runs.looking import looking_once
    from pae_framework.runs.status import Comparison, comparison_job, run_status

    if run is None:
        if overrides or recipe is not None:
            raise UsageError("name the run whose stages are compared: `pae status RUN ...`")
        _list(as_json)
        return
    compared = Comparison(installed_registry(plugin or ()), recipe, tuple(overrides or ()))
    with looking_once():
        members = run_status(run, compared)
        comparison = comparison_job(run)
    if as_json:
        runs = {name: _plain(run, name, rows) for name, rows in members.items()}
        print_answer("status", {"runs": runs})
        return
    if comparison is not None:
        _print_members(members, comparison)
        return
    for name, rows in members.items():
        print_line(name)
        columns = [
            (row.stage, row.state, row.progress, row.time, Path(row.folder).name) for row in rows
        ]
        print_table(("stage", "state", "progress", "time", "folder"), columns)
        for line in (*_details(rows), *_verdict_lines(_verdict(run, name, rows))):
            print_line(line)
        print_line("")


def _plain(run: Path, name: str, rows: Sequence[StageStatus]) -> list[dict[str, Any]]:
    """The stages of a run in JSON types; ``evaluate`` with the verdict, if there is one."""
    verdict = _verdict(run, name, rows)
    return [
        asdict(row) | ({"verdict": asdict(verdict)} if verdict and row.stage == "evaluate" else {})
        for row in rows
    ]


def _verdict(run: Path, name: str, rows: Sequence[StageStatus]) -> Verdict | None:
    """The verdict on a run, or on a member of a sweep; None if its evaluation is not done."""
    from pae_framework.runs.opened import open_directory
    from pae_framework.runs.run_verdict import read_verdict

    if not any(row.stage == "evaluate" and row.state == "done" for row in rows):
        return None
    member = run / "members" / name
    try:
        return read_verdict(open_directory(member if member.is_dir() else run))
    except PaeError as error:
        warn(f"there is no verdict on {name}: {error}")
        return None


def _verdict_lines(verdict: Verdict | None) -> list[str]:
    from pae_framework.report.text import verdict_lines

    return [] if verdict is None else ["", *verdict_lines(verdict)]


def _list(as_json: bool) -> None:
    """One line for each run of ``runs/``."""
    from pae_framework.preflight.resources import RUNS
    from pae_framework.report.table import result_rows
    from pae_framework.runs.listing import list_runs
    from pae_framework.system.durations import format_age

    runs = list_runs(RUNS)
    if as_json:
        print_answer("status", {"listed": [asdict(run) for run in runs]})
        return
    if not runs:
        note(f"no runs in {RUNS.absolute()}; `pae run quickstart` starts one")
        return
    rows: list[tuple[str, ...]] = []
    for run in runs:
        (metric,) = result_rows([run.metric]) if run.metric else (None,)
        value = f"{metric.label} {metric.arrow} {metric.value}" if metric else ""
        name = f"{RUNS / Path(run.path).name}"
        done = f"{run.done}/{run.stages}"
        rows.append((name, run.state, done, format_age(run.age_seconds), value))
    print_table(("run", "state", "stages", "age", "metric"), rows)
    for run in runs:
        if run.error:
            warn(run.error)


def _print_members(members: Mapping[str, list[StageStatus]], comparison: JobStatus) -> None:
    """One line for each member of a submitted sweep, and how many are in which state."""
    table, states, facts = [], Counter[str](), dict[str, None]()
    for name, rows in members.items():
        done = sum(row.state == "done" for row in rows)
        current = _current(rows)
        states[_member_state(current)] += 1
        job = current.job if current and current.job and not current.job.ended else None
        table.append(
            (
                name,
                f"{done}/{len(rows)}",
                current.stage if current else "",
                _member_state(current),
                current.progress if current else "",
                f"{job.id} {job.state}".strip() if job else "",
            )
        )
        if current is not None:
            facts.update(dict.fromkeys(_member_facts(name, current)))
    print_table(("member", "done", "stage", "state", "progress", "job"), table)
    for fact in (*facts, f"report: {comparison}"):
        for line in wrapped(fact):
            print_line(line)
    counted = ", ".join(f"{number} {state}" for state, number in states.most_common())
    print_line(f"{len(members)} member{'' if len(members) == 1 else 's'}: {counted}")


def _current(rows: Sequence[StageStatus]) -> StageStatus | None:
    """The stage of a member that runs or failed, else the first that is not done."""
    unfinished = [row for row in rows if row.state != "done"]
    for state in ("running", "failed", "damaged"):
        if found := [row for row in unfinished if row.state == state]:
            return found[0]
    return unfinished[0] if unfinished else None


def _member_state(current: StageStatus | None) -> str:
    return "done" if current is None else current.state


def _member_facts(member: str, current: StageStatus) -> Iterator[str]:
    """What a member waits for or failed of; members that wait for one job share one line."""
    if current.error:
        yield f"{member}: {current.stage}: {current.error}"
    if current.job is not None and current.job.state != "RUNNING":
        task = "_" in current.job.id
        yield f"{member if task else current.stage}: {current.job}"


def _details(rows: Sequence[StageStatus]) -> Iterator[str]:
    """Where the stages are, what works on them, what failed, and why stages are stale."""
    from pae_framework.runs.edited import PluginChanges

    if rows:
        yield f"folders in {os.path.relpath(Path(rows[0].folder).parent)}"
    for row in rows:
        if row.error:
            yield f"{row.stage}: {row.error}"
        facts = [*_work(row), *row.changes[:_SHOWN]]
        if len(row.changes) > _SHOWN:
            facts.append(f"and {len(row.changes) - _SHOWN} more changes")
        if row.stale_inputs:
            facts.append(f"reads {', '.join(row.stale_inputs)}, which changed")
        facts.append(PluginChanges(row.edited, row.upgraded).note(row.stage))
        for fact in (*facts, row.outlook):
            if fact:
                yield from wrapped(f"{row.stage}: {fact}")
    for line in _jobs(rows):
        yield from wrapped(line)


def _work(row: StageStatus) -> Iterator[str]:
    """What works on a stage, and how fast."""
    from pae_framework.system.durations import format_seconds

    yield row.process
    speed = "" if row.images_per_s is None else f"{row.images_per_s:.0f} images/s"
    left = "" if row.seconds_left is None else f"about {format_seconds(row.seconds_left)} left"
    yield ", ".join(filter(None, [speed, left]))


def _jobs(rows: Sequence[StageStatus]) -> Iterator[str]:
    """Where the jobs of unfinished stages stand, and the logs of those that ended."""
    from pae_framework.runs.job_status import named

    stages: dict[str, list[StageStatus]] = {}
    for row in rows:
        if row.job is not None and not (row.state == "done" and row.job.ended):
            stages.setdefault(row.job.id, []).append(row)
    for found in stages.values():
        job = found[0].job
        yield f"{named([row.stage for row in found])}: {job}"
        if job is not None and job.ended and Path(job.log).is_file():
            yield f"  log: {os.path.relpath(job.log)}"
