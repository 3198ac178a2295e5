"""Where jobs stand, as Slurm tells it, and how they are ended. No torch."""

from __future__ import annotations

import pwd
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from pae_framework.system.slurm import SlurmUnknownError, ask_slurm, slurm_rows, unreadable

ANSWER_SECONDS = 10
"""How long a person who looks at jobs waits for each answer."""
COMPLETING_SECONDS = 60
"""How long a submission waits for jobs of the run that are ending."""
_POLL_SECONDS = 1
NAME_PREFIX = "pae-"
"""The names of our jobs begin so. Other clusters, and one whose state is lost, reuse ids."""

RUNNING = frozenset(
    {"CONFIGURING", "RUNNING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED"}
    | {"COMPLETING"}
)
"""States of a job that has nodes."""
_ENDED = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"}
    | {"REVOKED", "TIMEOUT"}
)

_SQUEUE_FIELDS = ("JobArrayID", "Name", "State", "Reason", "NodeList", "StartTime", "RestartCnt")
_SACCT_FIELDS = ("JobID", "JobName", "State", "Reason", "NodeList", "Start", "ExitCode")
_WIDTH = 400
"""Characters of a field, which squeue cuts and pads."""


@dataclass(frozen=True)
class SlurmJob:
    """A job, or a task of an array of jobs."""

    id: str
    """``12`` or ``12_3``."""
    state: str
    """As Slurm writes it: ``PENDING``."""
    reason: str = ""
    """Why it waits or ended, as Slurm writes it: ``Dependency``; empty: none."""
    nodes: str = ""
    """As Slurm writes it: ``node[1-2]``."""
    start: str = ""
    """Since when it runs, or when it is expected to start; empty: unknown."""
    restarts: int | None = None
    """How often it was started again; None: accounting does not tell."""
    exit_code: str = ""
    """From accounting: code and signal, ``1:0``."""
    canceled_by: str = ""
    """From accounting: name of the user who canceled it."""
    queued: bool = True
    """Whether the controller tells it; otherwise it is from accounting."""

    @property
    def runs(self) -> bool:
        """Whether it has nodes."""
        return self.state in RUNNING

    @property
    def ended(self) -> bool:
        """Whether it has ended for good. A preempted or requeued job of the controller goes on."""
        if self.queued:
            return self.state in _ENDED
        return self.state not in RUNNING and self.state != "PENDING"


@dataclass(frozen=True)
class SlurmAnswer:
    """What Slurm says about some jobs."""

    jobs: Mapping[str, SlurmJob]
    """Those it knows, by id."""
    queue_problem: str = ""
    """Why the controller did not answer; empty: it did."""
    accounting_problem: str = ""
    """Why accounting did not answer, if it was asked."""


def look_at(ids: Collection[str]) -> SlurmAnswer:
    """Ask Slurm about jobs; those that the controller has forgotten are looked up in accounting.

    Args:
        ids: ``12``, or ``12_3`` for a task of an array.
    """
    found: dict[str, SlurmJob] = {}
    queue_problem = accounting_problem = ""
    try:
        found.update(_queue(ids, ANSWER_SECONDS))
    except SlurmUnknownError as error:
        queue_problem = str(error)
    unknown = [i for i in ids if i not in found or found[i].state == "CANCELLED"]
    if unknown:
        try:
            for job, known in _accounting(unknown).items():
                earlier = found.get(job, known)
                found[job] = replace(earlier, canceled_by=known.canceled_by)
        except SlurmUnknownError as error:
            accounting_problem = str(error)
    asked = {job: found[job] for job in ids if job in found}
    return SlurmAnswer(asked, queue_problem, accounting_problem)


def end_jobs(ids: Collection[str]) -> None:
    """Tell Slurm to end jobs: those that run are told to save first.

    Raises:
        SlurmUnknownError: Slurm does not do it.
    """
    ask_slurm("scancel", *ids)


def queued_jobs(
    ids: Collection[str], tell: Callable[[list[str]], None] = lambda jobs: None
) -> frozenset[str]:
    """Those of the jobs that the controller knows and that have not ended.

    Jobs whose processes are ending are waited for, at most ``COMPLETING_SECONDS``: only then is it
    known whether they are requeued. A preempted job that is not requeued by then has ended.

    Args:
        ids: of jobs.
        tell: called once with the jobs that are waited for.

    Raises:
        SlurmUnknownError: Slurm cannot be asked.
    """
    end = time.monotonic() + COMPLETING_SECONDS
    told = False
    while True:
        states = {job: found.state for job, found in _queue(ids).items() if not found.ended}
        ending = [job for job, state in states.items() if state in ("COMPLETING", "PREEMPTED")]
        if not ending or time.monotonic() > end:
            return frozenset(job for job, state in states.items() if state != "PREEMPTED")
        if not told:
            tell(ending)
            told = True
        time.sleep(_POLL_SECONDS)


def job_state(job: str) -> str:
    """State of a job that has not been forgotten: ``RUNNING``, ``COMPLETING``, ``PENDING``, ...

    Raises:
        SlurmUnknownError: Slurm cannot be asked, or has forgotten the job.
    """
    answer = ask_slurm("scontrol", "--oneliner", "show", "job", job)
    found = re.search(r"\bJobState=(\S+)", answer)
    if found is None:
        raise unreadable("scontrol", answer)
    return found[1]


def requeue(job: str) -> None:
    """Put a running job back into the queue, under its id; its processes are ended.

    Raises:
        SlurmUnknownError: Slurm does not do it.
    """
    ask_slurm("scontrol", "requeue", job)


def _queue(ids: Iterable[str], seconds: float | None = None) -> dict[str, SlurmJob]:
    """The jobs that the controller knows."""
    layout = ",".join(f"{field}:{_WIDTH}|" for field in _SQUEUE_FIELDS)
    options = ("--noheader", "--array", "--states=all", f"--Format={layout}")
    jobs = f"--jobs={_of_arrays(ids)}"
    try:
        answer = ask_slurm("squeue", *options, jobs, seconds=seconds)
    except SlurmUnknownError as error:
        if "Invalid job id" in str(error):  # the answer if it knows none of them
            return {}
        raise
    return {
        job: SlurmJob(job, state, _value(reason), _value(nodes), _time(start), _count(restarts))
        for job, state, reason, nodes, start, restarts in _ours(
            answer, "squeue", len(_SQUEUE_FIELDS)
        )
    }


def _accounting(ids: Iterable[str]) -> dict[str, SlurmJob]:
    """The jobs that accounting knows."""
    options = ("--noheader", "--parsable2", "--allocations", f"--format={','.join(_SACCT_FIELDS)}")
    jobs = f"--jobs={_of_arrays(ids)}"
    answer = ask_slurm("sacct", *options, jobs, seconds=ANSWER_SECONDS)
    return {
        job: SlurmJob(
            job,
            state.partition(" ")[0],
            _value(reason),
            _value(nodes),
            _time(start),
            exit_code=code,
            canceled_by=_user(state.partition(" by ")[2]),
            queued=False,
        )
        for job, state, reason, nodes, start, code in _ours(answer, "sacct", len(_SACCT_FIELDS))
    }


def _of_arrays(ids: Iterable[str]) -> str:
    """The jobs as Slurm lists them: an array stands for its tasks."""
    return ",".join(dict.fromkeys(job.partition("_")[0] for job in ids))


def _ours(answer: str, command: str, fields: int) -> Iterator[tuple[str, ...]]:
    """Fields of the lines about jobs of this program, without the name, which is the second."""
    for words in slurm_rows(answer, command, fields):
        if words[1].startswith(NAME_PREFIX):
            yield (words[0], *words[2:fields])


def _value(text: str) -> str:
    return "" if text in ("None", "None assigned", "(null)", "n/a") else text


def _time(text: str) -> str:
    return "" if text in ("N/A", "None", "Unknown") else text


def _count(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _user(number: str) -> str:
    """Name of a user, whom accounting gives by number."""
    with suppress(ValueError, KeyError, OverflowError):
        return pwd.getpwuid(int(number)).pw_name
    return number
