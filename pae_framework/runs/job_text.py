"""States and reasons of Slurm in plain words. No torch."""

from __future__ import annotations

import time

from pae_framework.system.slurm_jobs import SlurmJob

LOCAL_ENDED = "ENDED"
"""State of a job of the executor local whose process has ended; how, nobody records."""

_REASONS = {
    "Resources": "waits for free nodes",
    "Priority": "waits for jobs with a higher priority",
    "JobArrayTaskLimit": "waits for other members; the profile limits how many run at once",
    "JobHeldUser": "held by a user; `scontrol release {id}` lets it start",
    "JobHeldAdmin": "held by an administrator",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition starts no jobs at present",
    "PartitionTimeLimit": "its time limit is longer than the partition allows",
    "PartitionNodeLimit": "it asks for more nodes than the partition allows",
    "ReqNodeNotAvail": "nodes that it needs are not available",
    "BadConstraints": "no node has what it asks for",
    "Licenses": "waits for licenses",
    "Reservation": "waits for its reservation",
    "JobLaunchFailure": "it could not be started; perhaps its log cannot be written on the node",
}
_LIMITS = ("QOS", "Assoc", "MaxJobs")
"""How reasons begin that name a limit of the site."""

_REASONS_OF_AN_END = ("JobLaunchFailure", "Dependency")

_ENDS = {
    "COMPLETED": "finished",
    "FAILED": "failed",
    "TIMEOUT": "reached its time limit",
    "NODE_FAIL": "a node failed",
    "OUT_OF_MEMORY": "used more memory than it asked for",
    "BOOT_FAIL": "a node did not start",
    "DEADLINE": "reached its deadline",
    "PREEMPTED": "gave way to a job with a higher priority, and was not requeued",
    "REQUEUED": "requeued, and no longer in the queue",
    "REVOKED": "moved to another cluster",
    "CANCELLED": "canceled",
    LOCAL_ENDED: "its process has ended",
}
_GOES_ON = {
    "CONFIGURING": "its nodes are being prepared",
    "COMPLETING": "its processes are ending",
    "SUSPENDED": "suspended; Slurm continues it later",
    "STOPPED": "stopped by a signal",
    "PREEMPTED": "gives way to a job with a higher priority; resumes when it is requeued",
    "REQUEUED": "requeued; resumes under the same id",
    "REQUEUE_FED": "requeued; resumes under the same id",
    "REQUEUE_HOLD": "requeued and held; `scontrol release {id}` lets it resume",
    "SPECIAL_EXIT": "requeued and held; `scontrol release {id}` lets it resume",
}


def state_text(job: SlurmJob) -> str:
    """State and reason as Slurm writes them: ``PENDING (Resources)``."""
    reason = _present_reason(job)
    return f"{job.state} ({reason})" if reason else job.state


def waiting_text(job: SlurmJob, restarts: int, waits_for: str, broken: str) -> str:
    """Why a pending job does not run.

    Args:
        job: the job.
        restarts: how often it was started again.
        waits_for: the jobs that must end before.
        broken: those that ended without success.
    """
    again = "again " if restarts else ""
    when = f"starts {again}at {clock(job.start)}" if job.start else ""
    if job.reason == "Dependency":
        said = f"waits for {waits_for}" if waits_for else "starts soon: its inputs are done"
        when = ""
    elif job.reason == "DependencyNeverSatisfied":
        said = f"never starts: {broken or 'a job that it depends on'} did not succeed"
        when = ""
    else:
        said = reason_text(job)
        when = when if job.reason == "BeginTime" or not when else f"expected: {when}"
    return _joined(times_text(restarts), said, when)


def running_text(job: SlurmJob, restarts: int) -> str:
    """Where and since when a job runs, or how it resumes."""
    where = f"on {job.nodes}" if job.nodes else ""
    since = f"since {clock(job.start)}" if job.start and job.runs else ""
    place = " ".join(filter(None, [where, since]))
    return _joined(place, _GOES_ON.get(job.state, "").format(id=job.id), times_text(restarts))


def ended_text(job: SlurmJob, restarts: int, broken: str, by_command: bool) -> str:
    """How a job ended.

    Args:
        job: the job.
        restarts: how often it was started again.
        broken: jobs that it depends on and that ended without success.
        by_command: whether `pae cancel` ended it.
    """
    if by_command:
        return "ended by `pae cancel`"
    if job.state == "CANCELLED" and job.reason.startswith("Dependency") and broken:
        return f"never started: {broken} did not succeed"
    if job.state == "CANCELLED" and job.canceled_by:
        return f"canceled by {job.canceled_by}"
    code, _, number = job.exit_code.partition(":")
    exit_text = f"exit code {code}" if code != "0" else f"signal {number}"
    failed = job.state == "FAILED" and job.exit_code
    return _joined(
        _ENDS.get(job.state, ""),
        reason_text(job),
        exit_text if failed else "",
        times_text(restarts),
    )


def reason_text(job: SlurmJob) -> str:
    """Slurm's reason in plain words; empty if there is nothing to add to it."""
    name = _present_reason(job).partition(",")[0]
    if name.startswith(_LIMITS):
        return "waits for a limit of the account or its quality of service"
    return _REASONS.get(name, "").format(id=job.id)


def _present_reason(job: SlurmJob) -> str:
    """Slurm's reason for the state; for an ended job, accounting keeps why it once waited."""
    if job.queued or job.reason.startswith(_REASONS_OF_AN_END):
        return job.reason
    return ""


def times_text(restarts: int) -> str:
    """How often a job was requeued; empty if never."""
    if restarts == 0:
        return ""
    return "requeued once" if restarts == 1 else f"requeued {restarts} times"


def clock(when: str) -> str:
    """A time as Slurm writes it, for today's reader: ``12:04``, or with another day."""
    day, _, hours = when.partition("T")
    return hours[:5] if day == time.strftime("%Y-%m-%d") else f"{day} {hours[:5]}"


def _joined(*facts: str) -> str:
    return ", ".join(filter(None, facts))
