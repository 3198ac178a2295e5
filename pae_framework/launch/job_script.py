"""Shell code in the batch script of a Slurm job, around the processes that it starts. No torch."""

from __future__ import annotations

import shlex
from pathlib import Path

_SRUN = """\
pae_told=
trap 'pae_told=1' TERM USR1 USR2 HUP
srun() {
    pae_job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
    pae_asked=FOLDER/$pae_job.requeue
    if command -v scontrol >/dev/null; then
        export PAE_REQUEUE=$pae_asked
        rm -f "$pae_asked"
    fi
    pae_code=1
    if [ -z "$pae_told" ]; then
        command srun "$@" &
        pae_srun=$!
        trap 'pae_told=1; kill -USR2 "$pae_srun" || :' TERM USR1 USR2 HUP
        while :; do
            wait "$pae_srun" || :
            kill -0 "$pae_srun" 2>/dev/null || break
        done
        pae_code=0
        wait "$pae_srun" || pae_code=$?
    fi
    if [ -e "$pae_asked" ]; then
        rm "$pae_asked"
        pae_told=1
    fi
    if [ -n "$pae_told" ] && [ "$pae_code" -ne 0 ]; then
        case $(scontrol show job "$pae_job") in *JobState=RUNNING*)
            echo "job $pae_job is requeued by its script"
            scontrol requeue "$pae_job" || :
        esac
    fi
    return "$pae_code"
}"""
"""Before the profile's setup, which may last: a job that is told to stop there is requeued.

Works with ``set -eu -o pipefail`` in the setup.
"""


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
