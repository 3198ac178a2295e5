"""A chain of all stages: an undisturbed run, and others that are interrupted again and again."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interrupter import Ended, Interrupter, Interruption

from pae_framework.recipe import stage_table
from pae_framework.system.files import read_json
from pae_framework.training.checkpoint import MAX_CHECKPOINTS

RECIPE = """\
pae: 1
extends: quickstart
name: interrupted
data: {image_size: 16, test_images: 20}
runtime: {threads: 1, device: cpu}
extractor: {width: 8, train: {steps: 4, batch_size: 8, checkpoint_every: 3, log_every: 3}}
tokenizer:
  encoder:
    width: 48
    depth: 2
    train: {steps: 4, batch_size: 8, warmup_steps: 1, checkpoint_every: 3, log_every: 3}
  bottleneck: {channels: 4}
  decoder: {width: 48, depth: 1}
  refinement: {train: {steps: 4, batch_size: 8, checkpoint_every: 3, log_every: 3}}
  adversarial: {weight: 0.3, discriminator: {use: patchgan, layers: 1, width: 8}}
  train:
    steps: 7
    batch_size: 8
    warmup_steps: 1
    checkpoint_every: 2
    log_every: 3
    ema: 0.9
    workers: 2
latents: {shard_size: 300}
generator:
  width: 32
  depth: 1
  heads: 2
  train:
    steps: 5
    batch_size: 8
    warmup_steps: 1
    checkpoint_every: 2
    log_every: 3
    keep_steps: [3]
sample: {count: 12, steps: 2, batch_size: 8, at_steps: [3], few_steps: [1]}
evaluate: {manifold: {images: 10}}
"""
TRAINED = ("extractor", "encoder", "refine", "tokenizer", "generator")
STAGES = tuple(name for name in stage_table.STAGES if name != "teacher")
OTHERS = tuple(name for name in STAGES if name not in TRAINED)
SPEED = {"images_per_s", "data_wait"}
MOST = 300
"""Processes that one run may take: each interruption loses less than it gains, on average."""

UNDISTURBED = Interruption()

Draw = Callable[[random.Random, int], Interruption]
"""Draws how a process is interrupted that does at most so many operations."""


def at_weights_of(stage: str, action: str = "KILL") -> Interruption:
    """When a training is done and writes its weights: its last step has a checkpoint."""
    return Interruption({1: action}, on=rf"/{stage}-.*/\.weights\.safetensors\.")


@dataclass(frozen=True)
class Chain:
    """The undisturbed run, and how to interrupt another."""

    folder: Path
    interrupter: Interrupter
    run: Path
    operations: dict[str, int]
    """Of the undisturbed run, by stage."""
    command: tuple[str, ...]
    """What starts it, after ``pae``."""

    def pae_run(self, run: Path | str, interruption: Interruption = UNDISTURBED) -> Ended:
        """Start or resume a run, of a name or at a path."""
        return self.interrupter.run(self.folder / run, interruption, *self.command)

    def interrupted(self, name: str, seed: int, draws: Sequence[Draw]) -> list[Ended]:
        """Start a run, interrupted each time, until it is done."""
        rng, ended = random.Random(seed), []
        for _ in range(MOST):
            drawn = rng.choice(draws)(rng, sum(self.operations.values()) // 3)
            ended.append(self.pae_run(name, drawn))
            check_end(ended[-1], drawn)
            if ended[-1].code == 0:
                return ended
        raise AssertionError(f"not done after {MOST} processes")

    def killed_in(self, name: Path | str, stage: str, rng: random.Random) -> None:
        """Run to a random moment of a stage, which must not have begun, and kill it there."""
        moment = rng.randint(1, self.operations[stage])
        ended = self.pae_run(name, Interruption({moment: "KILL"}, on=f"/stages/{stage}-"))
        assert ended.code == -signal.SIGKILL, f"{stage} {moment}: {ended.output}"

    def finished_as_undisturbed(self, run: Path | str) -> Ended:
        """Resume a run to its end; what it leaves is that of the undisturbed one."""
        ended = self.pae_run(run)
        assert ended.code == 0, ended.output
        self.assert_as_undisturbed(run)
        return ended

    def assert_as_undisturbed(self, run: Path | str) -> None:
        expected, found = results(self.run), results(self.folder / run)
        assert found.keys() == expected.keys()
        assert [key for key in expected if found[key] != expected[key]] == []
        for stage in TRAINED:
            folders = list((self.folder / run / stage / "checkpoints").iterdir())
            assert len(folders) <= MAX_CHECKPOINTS, folders
        assert list((self.folder / run).rglob("*.new")) == []  # of processes that were killed


def check_end(ended: Ended, interruption: Interruption) -> None:
    """It ends as a signal ends a process, stops on request, or is done; never with an error."""
    numbers = {int(signal.Signals[f"SIG{name}"]) for name in interruption.at.values()}
    allowed = {0, *(-number for number in numbers)}
    if interruption.after is not None:
        allowed.add(-signal.SIGKILL)
    if numbers - {signal.SIGKILL}:
        allowed.add(1)
    if signal.SIGINT in numbers:
        allowed.add(130)
    assert ended.code in allowed, f"{interruption}: {ended.code}\n{ended.output}"
    assert "Traceback" not in ended.output, ended.output
    assert ended.code != 1 or "stopped" in ended.output, ended.output


def refused(ended: Ended, *facts: object) -> None:
    """It ends with one error that states the facts."""
    assert ended.code in {1, 2}, ended.output
    assert "Traceback" not in ended.output, ended.output
    for fact in facts:
        assert str(fact) in " ".join(ended.output.split()), ended.output


# --- what must be equal ---------------------------------------------------------------------------


def metrics(path: Path) -> list[dict[str, Any]]:
    """A log without the columns that measure time."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [{key: value for key, value in row.items() if key not in SPEED} for row in rows]


WITH_TIMES = {"stage.json", "metrics.jsonl", "report.html", "report.json"}
COMPARED = {".safetensors", ".pt", ".npz", ".png", ".json", ".jsonl", ".csv", ".md"}


def results(run: Path) -> dict[str, Any]:
    """Bytes of the files of every stage but its earlier checkpoints, times and the report."""
    found: dict[str, Any] = {}
    for stage in sorted(path for path in run.iterdir() if path.is_symlink() and path.is_dir()):
        last = max(stage.glob("checkpoints/step-*"), default=None)
        for path in sorted(stage.rglob("*.*")):
            other = path.parent.parent.name == "checkpoints" and path.parent != last
            if path.suffix in COMPARED and path.name not in WITH_TIMES and not other:
                found[str(path.relative_to(run))] = path.read_bytes()
    for stage in TRAINED:
        found[f"log of {stage}"] = metrics(run / stage / "metrics.jsonl")
    for stage in STAGES:
        found[f"state of {stage}"] = read_json(run / stage / "stage.json")["state"]
    return found
