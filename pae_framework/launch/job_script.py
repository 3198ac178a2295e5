"""Shell code in the batch script of a Slurm job, around the processes that it starts. No torch."""

from __future__ import annotations

import shlex
from pathlib import Path

_SRUN = """\
srun() {
    pae_job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
    if command -v scontrol >/dev/null; then
        export PAE_REQUEUE=FOLDER/$pae_job.requeue
        rm -f "$PAE_REQUEUE"
    fi
    command srun "$@" &
    pae_srun=$!
    trap 'pae_told=1; kill -USR2 "$pae_srun"' TERM USR1 USR2 HUP
    while :; do
        wait "$pae_srun"
        pae_code=$?
        kill -0 "$pae_srun" 2>/dev/null || break
    done
    if [ -e "$PAE_REQUEUE" ]; then
        rm "$PAE_REQUEUE"
        pae_told=1
    fi
    if [ -n "$pae_told" ] && [ "$pae_code" -ne 0 ] &&
        scontrol show job "$pae_job" | grep -q JobState=RUNNING; then
        echo "job $pae_job is requeued by its script"
        scontrol requeue "$pae_job"
    fi
    return "$pae_code"
}"""


def srun_function(folder: Path) -> str:
    """In place of srun: a signal to the script reaches the processes, which then save.

    The script requeues the job if they cannot: a signal to every process of the job
    (``scancel --full``) also reaches srun, which ends the step at once if it is TERM; and in a
    container there may be no scontrol. They ask for it with the file ``PAE_REQUEUE``.

    Args:
        folder: of the run's jobs.
    """
    return _SRUN.replace("FOLDER", shlex.quote(str(folder)))


def deaf_at_start(interpreter: str) -> str:
    """A command that starts Python; signals do not end it before its code heeds them."""
    trap = 'trap "" TERM USR1 USR2 HUP; exec "$0" "$@"'
    return f"/bin/sh -c {shlex.quote(trap)} {shlex.quote(interpreter)}"
