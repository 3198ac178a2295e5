"""Commands of Slurm that answer as they are told, in the format of Slurm 22.05."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.jobs import RunJobs, SubmittedStage

COMMANDS = ("squeue", "sacct", "scancel")


class FakeSlurm:
    """Answers of the controller and of accounting; ``calls`` are the commands that were given."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder = folder
        folder.mkdir()
        for name in COMMANDS:
            (folder / name).write_text(
                f'#!/bin/sh\necho "{name} $*" >> {folder}/calls\n'
                f"cat {folder}/{name}.err >&2 2>/dev/null\ncat {folder}/{name}.out 2>/dev/null\n"
                f"exit $(cat {folder}/{name}.code 2>/dev/null || echo 0)\n"
            )
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def queue(self, *rows: str) -> None:
        self.answer("squeue", "".join(f"{row}\n" for row in rows))

    def accounting(self, *rows: str) -> None:
        self.answer("sacct", "".join(f"{row}\n" for row in rows))

    def answer(self, command: str, out: str = "", err: str = "", code: int = 0) -> None:
        for suffix, text in (("out", out), ("err", err), ("code", str(code))):
            (self.folder / f"{command}.{suffix}").write_text(text)

    @property
    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []


def queued(
    job: str,
    state: str,
    reason: str = "None",
    nodes: str = "",
    start: str = "N/A",
    restarts: int = 0,
    name: str = "pae-run-stage",
) -> str:
    """A line of squeue, which pads each field."""
    fields = (job, name, state, reason, nodes, start, str(restarts))
    return "".join(f"{field:<400}|" for field in fields)


def accounted(
    job: str,
    state: str,
    reason: str = "None",
    nodes: str = "None assigned",
    start: str = "None",
    code: str = "0:0",
    name: str = "pae-run-stage",
) -> str:
    """A line of sacct."""
    return "|".join((job, name, state, reason, nodes, start, code))


def submitted(run: Path, stage: str, job: str, **values: Any) -> SubmittedStage:
    """Record a stage of a run as submitted."""
    number, _, index = job.partition("_")
    plan = {} if "members" in RunDirectory.at(run).info else RunDirectory.at(run).plan
    folder = plan[stage].folder if stage in plan else ""
    content = {
        "stage": stage,
        "fingerprint": folder.rpartition("-")[2],
        "folder": folder,
        "job": number,
        "array_index": int(index) if index else None,
        "executor": "slurm",
        "profile": "cluster",
        "host": "login1",
        "resources": {},
        "submitted": "2026-11-29T12:00:00+0000",
        "depends_on": [],
        "snapshot": "recipe-0123456789ab.yaml",
        "sources": {},
    }
    entry = SubmittedStage.model_validate({**content, **values})
    RunJobs(run).add([entry])
    return entry
