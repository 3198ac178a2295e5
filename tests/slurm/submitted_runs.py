"""Runs that are submitted with `pae run --on`, and a training that takes its time."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from local_slurm import LocalSlurm

from pae_framework.runs.jobs import RunJobs
from pae_framework.testing.pytest import Result, run_process

START = "Starting with JobEnvironment"
STARTS = "jobs/starts-encoder-*.jsonl"
SECONDS = 300
PROFILES = """\
one: {executor: slurm, time: 20, memory: 1GB, array_limit: 1, signal_before: 60}
two: {extends: one, nodes: 2}
four: {extends: two, tasks_per_node: 2, srun_args: [--overcommit]}
outside: {extends: one, srun_args: [/usr/bin/env, PATH=/nowhere]}
hasty: {extends: one, max_restarts_without_progress: 1}
short: {extends: one, time: 2, signal_before: 60}
"""
REGISTRATION = """\
from pae_framework import hookimpl

pae_api = 1

@hookimpl
def pae_register_datasets(register):
    target, config = "slow_digits:SlowDigits", "pae_datasets.config:DigitsConfig"
    register("slow", target=target, config=config, summary="digits that take their time")
"""
SOURCE = """\
import os
import time
from pathlib import Path

from pae_datasets.digits import Digits
from pae_framework.training.checkpoint import Checkpoints

FOLDER = Path(__file__).parent
save = Checkpoints.save


def slow_save(*arguments):
    (FOLDER / "saving").touch()
    time.sleep(float(os.environ.get("SECONDS_PER_SAVE", 0)))
    save(*arguments)


Checkpoints.save = slow_save


class SlowDigits(Digits):
    def __getitem__(self, index):
        time.sleep(float(os.environ.get("SECONDS_PER_IMAGE", 0)))
        return super().__getitem__(index)
"""
RECIPE = """\
pae: 1
extends: quickstart
name: slow
data: {image_size: 16, train: {use: slow}}
runtime: {threads: 1, device: cpu}
extractor: null
tokenizer:
  encoder:
    width: 48
    depth: 1
    train: {steps: 24, batch_size: 8, warmup_steps: 1, checkpoint_every: 1000, log_every: 1}
  bottleneck: {channels: 4}
  decoder: {width: 48, depth: 1}
  refinement: null
  regularizers: null
  reconstruction: {perceptual: null}
  train: {steps: 2, batch_size: 8, warmup_steps: 1, log_every: 1}
generator: null
sample: null
evaluate: null
"""
"""The encoder's training saves only at its end, or when it is told to stop."""


class Site:
    """A user's folder, profiles and plugin, and the runs in it."""

    def __init__(self, slurm: LocalSlurm, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slurm, self.folder = slurm, folder
        self.plugin = folder / "plugin"
        profiles = folder / "config" / "pae_framework" / "profiles.yaml"
        profiles.parent.mkdir(parents=True)
        profiles.write_text(PROFILES, encoding="utf-8")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        write_slow_training(folder)
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(self.plugin))))
        monkeypatch.setenv("PYTHONPATH", path)

    def pae(self, *words: str | Path) -> Result:
        return run_process("-m", "pae_framework", *words, cwd=self.folder, timeout=SECONDS)

    def run(self, *words: str | Path, run: str = "run") -> Result:
        return self.pae("run", *words, "--run-dir", run).ok()

    def jobs(self, run: str = "run") -> dict[str, str]:
        """The last job of each stage."""
        return {stage.stage: stage.id for stage in RunJobs(self.folder / run).submitted}

    def log(self, job: str, run: str = "run") -> str:
        file = RunJobs(self.folder / run).log(job)
        return file.read_text(encoding="utf-8") if file.exists() else ""

    def record(self, stage: str, run: str = "run") -> dict[str, Any]:
        return dict(json.loads((self.folder / run / stage / "stage.json").read_bytes()))

    def shown(self, stage: str, run: str = "run") -> dict[str, Any]:
        """What `pae status` says of the job of a stage."""
        (rows,) = self.pae("status", run, "--json").ok().json["runs"].values()
        return dict(next(row["job"] for row in rows if row["stage"] == stage))

    def wait(self, condition: Callable[[], bool], job: str, run: str = "run") -> None:
        """Wait for a condition, several times as long as for an answer of Slurm."""
        for _ in range(SECONDS // 60):
            try:
                self.slurm.until(condition)
                return
            except AssertionError:
                continue
        pytest.fail(f"job {job} is {self.slurm.state(job)}: {self.log(job, run)}")

    def ends(self, job: str, run: str = "run") -> str:
        """The state of a job when it has ended."""
        going = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED"}
        self.wait(lambda: self.slurm.state(job) not in going, job, run)
        return self.slurm.state(job)

    def starts(self, job: str, times: int = 1, run: str = "run") -> None:
        """Wait until a job has started the encoder's training so many times."""
        self.wait(lambda: len(self._starts(run)) >= times, job, run)

    def trains(self, job: str, times: int = 1, run: str = "run") -> None:
        """Wait until a job has taken two steps of the encoder's training in its n-th start."""
        self.starts(job, times, run)
        (file,) = (self.folder / run).glob(STARTS)
        saved, log = self._starts(run)[-1]["progress"], self.folder / run / "encoder/metrics.jsonl"

        def trains() -> bool:
            if not log.exists() or log.stat().st_mtime < file.stat().st_mtime:
                return False
            lines = log.read_text(encoding="utf-8").splitlines()
            return bool(lines) and json.loads(lines[-1])["step"] >= saved + 2

        self.wait(trains, job, run)

    def _starts(self, run: str) -> list[dict[str, Any]]:
        files = list((self.folder / run).glob(STARTS))
        lines = files[0].read_text(encoding="utf-8").splitlines() if files else []
        return [json.loads(line) for line in lines]

    def processes(self, job: str) -> dict[str, int]:
        """The processes of a job by their rank."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                variables = (folder / "environ").read_bytes().split(b"\0")
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            known = dict(x.decode(errors="replace").split("=", 1) for x in variables if b"=" in x)
            is_task = b"submitit.core._submit" in command and b"srun" not in command
            if is_task and known.get("SLURM_JOB_ID") == job and "SLURM_PROCID" in known:
                found[known["SLURM_PROCID"]] = int(folder.name)
        return found

    def close(self) -> None:
        """End all jobs of the runs."""
        for run in self.folder.glob("*/jobs.json"):
            for job in {stage.job for stage in RunJobs(run.parent).submitted}:
                subprocess.run(["scancel", job], capture_output=True, check=False)


def write_slow_training(folder: Path) -> None:
    """Write the recipe, and the plugin that it needs."""
    (folder / "slow.yaml").write_text(RECIPE, encoding="utf-8")
    metadata = folder / "plugin" / "slow_source-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-source\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[pae_framework]\nslow = slow_source\n")
    (folder / "plugin" / "slow_source.py").write_text(REGISTRATION)
    (folder / "plugin" / "slow_digits.py").write_text(SOURCE)


Left = bytes | list[dict[str, float]]


def results(run: Path) -> dict[str, Left]:
    """What the encoder's training leaves: weights, and its log without the columns of speed."""
    speed = {"images_per_s", "data_wait"}
    lines = (run / "encoder" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    log = [{k: v for k, v in json.loads(line).items() if k not in speed} for line in lines]
    weights: dict[str, Left] = {f.name: f.read_bytes() for f in (run / "encoder").glob("*.s*")}
    return weights | {"log": log}
