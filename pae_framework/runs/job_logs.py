"""Finds and follows the logs of a run: those of its jobs, or of its processes. No torch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pae_framework.errors import UsageError
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.job_status import JobStatus, JobsView
from pae_framework.runs.jobs import SubmittedStage
from pae_framework.runs.plan import PlannedStage
from pae_framework.runs.record import StageRecord

_POLL_SECONDS = 0.5
_LOOK_SECONDS = 30.0
"""Between two questions to Slurm, which has to answer many people."""
_RECORD_SECONDS = 5.0
"""Between two looks at the record of the stage."""
_SETTLE_SECONDS = 1.0
"""How long a process may take to print its last lines."""


@dataclass(frozen=True)
class FoundLog:
    """The log of one process.

    Args:
        run: directory that was asked about.
        file: the log, which need not exist yet.
        stages: whose end is the end of what is followed: one, or those of the job or of the run.
        entry: the submitted stage; None: no job, the processes were started on this machine.
    """

    run: Path
    file: Path
    stages: tuple[Path, ...]
    entry: SubmittedStage | None = None

    @property
    def ended(self) -> bool:
        """Whether the records say that nothing more will be printed.

        Raises:
            RunError: a record is damaged.
        """
        states = {StageRecord(folder).state for folder in self.stages}
        return "running" not in states if self.entry is None else states == {"done"}

    def job(self) -> JobStatus | None:
        """How the job stands; None if there is none.

        Raises:
            RunError: a record is damaged.
        """
        if self.entry is None:
            return None
        return JobsView(self.run, only=self.entry).status(self.entry)


def find_log(run: Path, stage: str | None, rank: int) -> FoundLog:
    """The log of a stage; without a stage, of the one that runs, else of the last.

    Args:
        run: directory of a run, of a member, or of a sweep that was submitted.
        stage: name of a stage.
        rank: index of the process.

    Raises:
        UsageError: there is no such stage, process or log.
        RunError: a record is damaged.
    """
    info = RunDirectory.at(run).info
    plan = {} if "members" in info else RunDirectory.at(run).plan
    view = JobsView(run)
    entry = _choose(view, run, stage, plan)
    if entry is None:
        return _of_processes(run, info, stage, plan, rank)
    home = run if entry.member is None else view.jobs.path / "members" / entry.member
    folder = view.jobs.path / "stages"
    if plan:
        folder = run / info["store"]
    file = view.jobs.log(entry.id, rank)
    followers = home / "logs" / f"rank{rank}.log"  # which a process writes once it has begun
    if rank and followers.is_file():
        file = followers
    elif rank and not file.is_file() and view.jobs.log(entry.id).is_file():
        raise UsageError(f"job {entry.id} has no process {rank}: there is no {file}")
    entries = view.by_job[entry.id] if stage is None else [entry]
    return FoundLog(run, file, tuple(folder / each.folder for each in entries), entry)


def _choose(
    view: JobsView, run: Path, stage: str | None, plan: Mapping[str, PlannedStage]
) -> SubmittedStage | None:
    """The submitted stage whose log is meant; None if it is in no job."""
    if stage is None:
        return _latest(view)
    found = [entry for entry in view.submitted if entry.stage == stage]
    planned = plan.get(stage)
    own = [entry for entry in found if planned is None or entry.folder == planned.folder]
    if not found and not plan:
        names = sorted({entry.stage for entry in view.submitted}) or ["none"]
        raise UsageError(f"no job of {run} has a stage {stage!r}; stages in jobs: {_list(names)}")
    if not found and planned is None:
        raise UsageError(f"{run} has no stage {stage!r}; it has {_list(plan)}")
    chosen = own or found
    members = {entry.member for entry in chosen if entry.member}
    if not plan and len(members) > 1:
        first = run / "members" / min(members)
        raise UsageError(
            f"{len(members)} members of {run} have a stage {stage}; name one: "
            f"pae logs {first} {stage}"
        )
    return chosen[-1] if chosen else None


def _latest(view: JobsView) -> SubmittedStage | None:
    """The stage that runs; else that of the log written last; else the first."""
    running = [entry for entry in view.submitted if view.status(entry).runs]
    if running:
        return next((e for e in running if view.last_start(e)), running[0])
    written = [entry for entry in view.submitted if view.jobs.log(entry.id).is_file()]
    if written:
        return max(written, key=lambda entry: view.jobs.log(entry.id).stat().st_mtime)
    return view.submitted[0] if view.submitted else None


def _of_processes(
    run: Path,
    info: Mapping[str, object],
    stage: str | None,
    plan: Mapping[str, PlannedStage],
    rank: int,
) -> FoundLog:
    """The log of a process of a run that was not submitted."""
    if not plan:
        raise UsageError(f"{run} is a sweep; name a member: pae logs {run}/members/NAME")
    file = run / "logs" / f"rank{rank}.log"
    if not file.is_file():
        known = sorted(path.name for path in (run / "logs").glob("rank*.log"))
        there = f"there are {_list(known)}" if known else "it ran in one process, on its terminal"
        raise UsageError(f"{run} has no log of process {rank}: {there}")
    wanted = plan.values() if stage is None else [plan[stage]]
    store = run / str(info["store"])
    return FoundLog(run, file, tuple(store / planned.folder for planned in wanted))


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


@dataclass
class Tail:
    """Reads a log that grows."""

    path: Path
    _position: int = 0
    _rest: bytes = field(default=b"")

    def last_lines(self, count: int) -> list[str]:
        """The last whole lines; later calls go on after them."""
        return list(deque(self.new_lines(), maxlen=count))

    def new_lines(self) -> Iterator[str]:
        """The whole lines that were added; from the beginning if the log became shorter."""
        try:
            with self.path.open("rb") as log:
                if log.seek(0, 2) < self._position:
                    self._position, self._rest = 0, b""
                log.seek(self._position)
                for line in log:
                    self._position += len(line)
                    self._rest += line
                    if line.endswith(b"\n"):
                        yield self.unfinished()
        except FileNotFoundError:
            return

    def unfinished(self) -> str:
        """The line that is not whole; it counts as read."""
        line, self._rest = self._rest, b""
        return line.rstrip(b"\r\n").decode(errors="replace")


def follow(log: FoundLog, tail: Tail, tell: Callable[[str], None]) -> Iterator[str]:
    """The lines that are added to a log, until the stage ends, over all starts of its job.

    Args:
        log: the log.
        tail: what was read of it.
        tell: called when the job waits, resumes or ends, with what Slurm says.

    Raises:
        RunError: a record is damaged.
    """
    said, asked, read = "", -_LOOK_SECONDS, -_RECORD_SECONDS
    ended = False
    while not ended:
        yield from tail.new_lines()
        now = time.monotonic()
        if now - read >= _RECORD_SECONDS:
            ended, read = log.ended, now
        if now - asked >= _LOOK_SECONDS or ended:
            job, asked = log.job(), now
            if job is not None and str(job) != said:
                said = str(job)
                tell(said)
            ended = ended or (job is not None and job.ended is True)
        time.sleep(_POLL_SECONDS)
    time.sleep(_SETTLE_SECONDS)
    yield from tail.new_lines()
    if rest := tail.unfinished():
        yield rest
