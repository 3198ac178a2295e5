"""Commands with the names of Slurm's on PATH, which keep what they are told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

SBATCH = """\
n=$(cat {folder}/next); echo $((n + 1)) > {folder}/next
cp "$1" {folder}/$n.sh
env > {folder}/$n.env
[ ! -e {folder}/refuse-$n ] || {{ echo "sbatch: error: invalid partition" >&2; exit 1; }}
echo "Submitted batch job $n"
"""


class FakeSlurm:
    """Accepts jobs from number 100 on, and answers what a test says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        (folder / "next").write_text("100", encoding="utf-8")
        self.path = f"{folder / 'bin'}:/usr/bin:/bin"
        monkeypatch.setenv("PATH", self.path)
        self.command("sbatch", SBATCH.format(folder=folder))
        self.command("srun", "exit 0")
        self.queue({})
        self.state("RUNNING")

    def command(self, name: str, script: str) -> None:
        file = self.folder / "bin" / name
        file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        file.chmod(0o755)

    def queue(self, jobs: dict[str, str]) -> None:
        """Say which jobs are in the queue, with their states."""
        rows = (f"{job}|pae-run-stage|{state}|None||N/A|0" for job, state in jobs.items())
        self.command("squeue", "\n".join(f"echo '{row}'" for row in rows))

    def state(self, state: str) -> None:
        """Say which state every job has; ``scontrol requeue`` is accepted."""
        told = self.folder / "told"
        self.command("scontrol", f'echo "$@" >> {told}\necho "JobId=1 JobState={state}"')

    @property
    def told(self) -> list[str]:
        """What scontrol was told."""
        told = self.folder / "told"
        return told.read_text(encoding="utf-8").splitlines() if told.exists() else []

    def refuse(self, job: int) -> None:
        (self.folder / f"refuse-{job}").touch()

    @property
    def jobs(self) -> dict[int, dict[str, str]]:
        """The options of each job that was submitted, by its number."""
        return {
            int(script.stem): dict(
                re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script.read_text(), re.MULTILINE)
            )
            for script in sorted(self.folder.glob("*.sh"))
        }

    def script(self, job: int) -> str:
        return (self.folder / f"{job}.sh").read_text(encoding="utf-8")

    def environment(self, job: int) -> list[str]:
        """Names of the variables that sbatch saw."""
        lines = (self.folder / f"{job}.env").read_text(encoding="utf-8").splitlines()
        return [line.partition("=")[0] for line in lines]


def profiles(folder: Path, monkeypatch: pytest.MonkeyPatch, **keys: object) -> None:
    """Make one profile of Slurm, ``cluster``, the user's."""
    file = folder / "config" / "pae_framework" / "profiles.yaml"
    file.parent.mkdir(parents=True)
    cluster = {"executor": "slurm", "time": "01:00:00", **keys}
    file.write_text(json.dumps({"cluster": cluster}), encoding="utf-8")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
