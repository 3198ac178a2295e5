"""Hand jobs to submitit: to Slurm, to processes of this machine, or to this process. No torch."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pae_framework.errors import RunError, UsageError
from pae_framework.launch.job import VISIBLE_DEVICES
from pae_framework.launch.job_script import deaf_at_start, srun_function
from pae_framework.launch.submission import PlannedJob, slurm_parameters
from pae_framework.preflight.processes import processes_of
from pae_framework.recipe.profile_settings import Profile
from pae_framework.recipe.profiles import FoundProfile
from pae_framework.system.file_errors import writing
from pae_framework.system.slurm import outside_allocations
from pae_framework.system.slurm_jobs import NAME_PREFIX

_YEAR_MINUTES = 366 * 24 * 60


def require_slurm(profile: FoundProfile) -> None:
    """Check that this machine can submit jobs.

    Raises:
        UsageError: the profile needs Slurm, and its commands are not on PATH.
    """
    if profile.profile.executor != "slurm":
        return
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UsageError(
            f"profile {profile.name} submits to Slurm, but sbatch and srun are not on PATH; run it "
            "where Slurm is installed, or choose --on local"
        )


@dataclass(frozen=True)
class Executor:
    """The executor of submitit that a profile names.

    Args:
        profile: where jobs run.
        folder: of scripts and logs.
        run: name of the run, for the names of jobs.
    """

    profile: Profile
    folder: Path
    run: str

    def send(self, job: PlannedJob, works: Sequence[Any], after: Sequence[str]) -> list[str]:
        """Hand a job to submitit; returns the ids of its tasks.

        Args:
            job: the job.
            works: what each task runs.
            after: ids of the jobs that must have ended before.

        Raises:
            RunError: it is not accepted.
            WriteError: the folder of jobs cannot be written.
        """
        if self.profile.executor == "debug":
            return [f"debug-{os.getpid()}"]
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            with writing(self.folder):
                if self.profile.executor == "local":
                    return self._sent_local(job, works)
                return self._sent_to_slurm(job, works, after)
        except (FailedJobError, FailedSubmissionError) as error:
            said = [
                line for line in str(error).splitlines() if line.strip() and "--help" not in line
            ]
            reason = said[-1].strip() if said else "no reason is given"
            raise RunError(
                f"the job of {job.label} is not accepted: {reason}; jobs that were accepted stay "
                "in the queue"
            ) from error

    def _sent_to_slurm(
        self, job: PlannedJob, works: Sequence[Any], after: Sequence[str]
    ) -> list[str]:
        import submitit

        executor = submitit.AutoExecutor(
            folder=self.folder, cluster="slurm", slurm_python=f"{deaf_at_start(sys.executable)} -P"
        )
        executor.update_parameters(**self._parameters(job, after))
        with outside_allocations({"PYTHONPATH": _python_path()}):
            if len(works) == 1:
                return [executor.submit(works[0]).job_id]
            return [sent.job_id for sent in executor.submit_array(list(works))]

    def _parameters(self, job: PlannedJob, after: Sequence[str]) -> dict[str, Any]:
        """Submitit's parameters of a job."""
        given = slurm_parameters(self.profile, job.resources)
        given.setdefault("slurm_array_parallelism", len(job.tasks))  # submitit's default is 256
        additional = dict(given.get("slurm_additional_parameters", {}))
        additional["requeue"] = True
        if after:
            kind = "afterany" if job.whatever else "afterok"
            additional["dependency"] = f"{kind}:{':'.join(after)}"
            additional["kill-on-invalid-dep"] = "yes"
        python_path = f"export PYTHONPATH={shlex.quote(_python_path())}"
        setup = [python_path, srun_function(self.folder)]
        srun = ["--kill-on-bad-exit=1", "--open-mode=append"]
        if (cpus := job.resources.cpus_per_task) is not None:
            srun.append(f"--cpus-per-task={cpus}")  # since 22.05 not taken over from sbatch
        srun += given.get("slurm_srun_args", [])
        return {
            **given,
            "name": _job_name(self.run, job.label),
            "stderr_to_stdout": True,
            "slurm_additional_parameters": additional,
            "slurm_setup": [*setup, *given.get("slurm_setup", [])],
            "slurm_srun_args": srun,
        }

    def _sent_local(self, job: PlannedJob, works: Sequence[Any]) -> list[str]:
        import submitit

        # Not submitit's `setup`: the job's process would be the shell, which forwards no signal.
        setup = [*self.profile.setup, 'exec "$0" "$@"']
        python = shlex.join(["bash", "-c", "\n".join(setup), sys.executable, "-P"])
        executor = submitit.LocalExecutor(self.folder, python=python)
        (work,) = works
        executor.update_parameters(
            timeout_min=_YEAR_MINUTES,
            tasks_per_node=processes_of(self.profile, job.resources),
            stderr_to_stdout=True,
        )
        extra = {"PYTHONPATH": _python_path()}
        if "CUDA_VISIBLE_DEVICES" in os.environ:
            extra[VISIBLE_DEVICES] = os.environ["CUDA_VISIBLE_DEVICES"]
        with outside_allocations(extra), _streams_into(self.folder / "local.log"):
            return [executor.submit(work).job_id]

    def run_here(self, works: Sequence[Any]) -> None:
        """Run jobs in this process (executor debug)."""
        import submitit

        executor = submitit.DebugExecutor(self.folder)
        for work in works:
            if (error := executor.submit(work).exception()) is not None:
                raise error


def _job_name(run: str, label: str) -> str:
    """A name for the queue, of characters that every tool of Slurm shows."""
    return re.sub(r"[^\w.+-]+", "-", f"{NAME_PREFIX}{run}-{label}")[:100]


def _python_path() -> str:
    """Where this process finds packages, for the processes of a job.

    Without the interpreter's own folders: they would mislead other versions of Python, such as that
    of a module or conda in the profile's ``setup``.
    """
    names = ("stdlib", "platstdlib", "purelib", "platlib", "scripts")
    own = [Path(sysconfig.get_path(name)) for name in names]
    own.append(own[0].with_name(f"python{sys.version_info.major}{sys.version_info.minor}.zip"))
    own += [Path(path) for path in (*site.getsitepackages(), site.getusersitepackages())]
    paths = [Path(path).absolute() for path in sys.path if path]
    return os.pathsep.join(
        str(path) for path in paths if not any(path.is_relative_to(folder) for folder in own)
    )


@contextmanager
def _streams_into(path: Path) -> Iterator[None]:
    """Give what is started inside no terminal and no pipe of this process."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(number) for number in range(3)]
    with Path(os.devnull).open("rb") as nothing, path.open("ab") as log:
        try:
            for number, file in enumerate((nothing, log, log)):
                os.dup2(file.fileno(), number)
            yield
        finally:
            for number, copy in enumerate(saved):
                os.dup2(copy, number)
                os.close(copy)
