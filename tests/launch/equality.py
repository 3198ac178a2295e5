"""Runs in one process and in several, and how far apart they end.

Sums over a batch are added in another order if processes share it, so results differ by rounding
errors. Two things amplify them:

- A kink of the loss (L1, ReLU, the hinge): a value within a rounding error of it has one of two
  gradients. The extractor's and the discriminator's networks have kinks; L1 is left out of the
  recipe, because some of its pixels are at the kink in every step.
- The bias of attention keys adds the same to all scores of a query, which has no effect. Its
  gradient is a rounding error, which AdamW scales up to a step of full size. It is not compared.

In one process, initial weights multiplied by 1 + 6e-8 lead to the same differences of extractor,
encoder and tokenizer. Refinement and generator also read upstream results that differ.
``TOLERANCES`` are three to ten times larger.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from forked import run_forked
from safetensors.torch import load_file
from torch import Tensor

from pae_framework.testing.pytest import Result, run_process

TRAINED = ("extractor", "encoder", "refine", "tokenizer", "generator")
STEPS, BATCH, MICRO_BATCHES = 24, 20, 2
"""20 images in 2 micro-batches: 4 processes have 3, 3, 2 and 2 of each."""

SPEED = {"images_per_s", "data_wait"}
WITHOUT_EFFECT = re.compile(r"(\bkey|k_proj|\bqkv)\.bias\b")

RECIPE = """\
pae: 1
extends: quickstart
name: equal
data:
  image_size: 16
  train: {use: shapes, split: train, count: 64}
  test: {use: shapes, split: test, count: 40}
runtime: {threads: 1, device: cpu}
extractor: {width: 8, train: TRAIN}
tokenizer:
  encoder: {width: 48, depth: 2, train: TRAIN}
  bottleneck: {channels: 4}
  decoder: {width: 48, depth: 1}
  reconstruction: {l1: 0}
  refinement: {centre: true, train: TRAIN}
  adversarial:
    weight: 0.3
    discriminator: {use: patchgan, layers: 1, width: 8}
    update_from: {steps: 2}
    start: {steps: 6}
    warmup: {steps: 4}
  train: TRAIN
latents: {shard_size: 50}
generator: {width: 32, depth: 2, heads: 2, train: TRAIN}
sample: null
evaluate: null
"""
"""All regularizers of quickstart, MCR's random directions among them, and batch norm."""
TRAIN = (
    f"{{steps: {STEPS}, batch_size: {BATCH}, accumulate: {MICRO_BATCHES}, ema: 0.9, clip: 1.0, "
    "warmup_steps: 4, checkpoint_every: 4, log_every: 1, keep_steps: [], workers: 0}"
)


def write_recipe(folder: Path) -> Path:
    """The recipe as a file."""
    path = folder / "equal.yaml"
    path.write_text(RECIPE.replace("TRAIN", TRAIN), encoding="utf-8")
    return path


def run_in(processes: int, run: Path, *words: str) -> Result:
    """``pae run`` the recipe beside the run's directory; one process of its own per rank."""
    command = _command(processes, run, *words)
    if processes == 1:
        words = tuple(map(str, command[2:]))
        return Result(*run_forked(*words, cwd=run.parent, timeout=500)).ok()
    return run_process(*command, cwd=run.parent, timeout=500).ok()


def stop_in(processes: int, run: Path, stage: str, step: int, *words: str) -> int:
    """The same, stopped as soon as a stage has a checkpoint of ``step``; returns its last step.

    The signal goes to the main process; it stops at the end of its step.
    """
    command = [sys.executable, *map(str, _command(processes, run, *words))]
    main = subprocess.Popen(
        command, cwd=run.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while not any(run.glob(f"stages/{stage}-*/checkpoints/step-{step:08d}")):
        assert main.poll() is None, f"ended before step {step} of {stage}: {main.stderr.read()}"
        time.sleep(0.002)
    main.send_signal(signal.SIGTERM)
    error = main.communicate()[1]
    assert main.returncode == 143, error
    (found,) = re.findall(rf"stopped at step (\d+) of {STEPS}", error)
    assert step <= int(found) < STEPS
    return int(found)


def _command(processes: int, run: Path, *words: str) -> tuple[str | Path, ...]:
    count = ("--processes", str(processes)) if processes > 1 else ()
    module = ("-m", "pae_framework", "run", "equal.yaml")
    return (*module, *words, "--run-dir", run.name, *count)


TOLERANCES = {
    "extractor": {"optimizer": 1e-4, "log": 1e-5, "": 1e-4},
    "encoder": {"optimizer": 1e-4, "log": 1e-5, "": 1e-4},
    "refine": {"optimizer": 1e-4, "log": 1e-5, "": 1e-4},
    "tokenizer": {
        "optimizer": 1e-2,
        "opponent": 5e-3,
        "opponent_optimizer": 5e-2,
        "log": 2e-2,
        "": 2e-3,
    },
    "generator": {"optimizer": 2e-3, "log": 1e-4, "": 2e-3},
}
"""Largest relative differences by stage and what is compared; "": all else.

The adversarial term has kinks, and the generator is trained on latents of the two tokenizers.
"""

Differences = dict[str, tuple[float, str]]
"""What was compared -> the largest relative difference, and where it is."""


def differences(one: Path, other: Path, stage: str) -> Differences:
    """How far apart two runs end in a stage that trains: weights, averages, optimizers, the log.

    Names, shapes and types of all tensors and the columns and steps of the logs must be equal.
    """
    first, second = _folder(one, stage), _folder(other, stage)
    found: Differences = {"log": _of_logs(first, second)}
    files = {path.relative_to(first) for path in _final_files(first)}
    assert files == {path.relative_to(second) for path in _final_files(second)}
    for file in files:
        found[file.stem] = _of_tensors(load_file(first / file), load_file(second / file))
    return found


def assert_equal(one: Path, other: Path, slack: float = 1.0) -> None:
    """Two runs end within ``slack`` times TOLERANCES of each other.

    Raises:
        AssertionError: lists what is too far apart.
    """
    too_far = [
        f"{stage}: {what} differs by {value:.1e} at {where}"
        for stage in trained_stages(one)
        for what, (value, where) in differences(one, other, stage).items()
        if not value <= slack * TOLERANCES[stage].get(what, TOLERANCES[stage][""])
    ]
    assert not too_far, "\n".join(too_far)


def trained_stages(run: Path) -> list[str]:
    """The trainings of a run; a recipe may leave some out."""
    return [stage for stage in TRAINED if any((run / "stages").glob(f"{stage}-*"))]


def _folder(run: Path, stage: str) -> Path:
    (folder,) = (run / "stages").glob(f"{stage}-*")
    return folder


def _final_files(folder: Path) -> Iterator[Path]:
    """What the training leaves, and its last checkpoint."""
    yield from folder.glob("*.safetensors")
    yield from (folder / "checkpoints" / f"step-{STEPS:08d}").glob("*.safetensors")


def _of_tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> tuple[float, str]:
    """The largest difference of a number, relative to the largest number of its tensor.

    Of a tensor of very small numbers (under a tenth of the typical tensor of its kind), relative to
    those of a typical one.
    """
    assert {k: (v.shape, v.dtype) for k, v in one.items()} == {
        k: (v.shape, v.dtype) for k, v in other.items()
    }
    compared = {name: value for name, value in one.items() if value.numel()}
    scales = {name: value.double().abs().max().item() for name, value in compared.items()}
    kinds: dict[str, list[float]] = {}
    for name, scale in scales.items():
        kinds.setdefault(_kind(name), []).append(scale)
    largest = (0.0, "")
    for name, value in compared.items():
        apart = _with_effect(name, (value.double() - other[name].double()).abs())
        least = 0.1 * sorted(kinds[_kind(name)])[len(kinds[_kind(name)]) // 2]
        largest = max(largest, (apart.max().item() / max(scales[name], least, 1e-30), name))
    return largest


def _kind(name: str) -> str:
    """The optimizer's averages have scales of their own."""
    return name.rpartition(".")[2] if name.endswith(("exp_avg", "exp_avg_sq", "step")) else ""


def _with_effect(name: str, apart: Tensor) -> Tensor:
    """Differences, 0 for the bias of attention keys."""
    if apart.ndim == 0 or not WITHOUT_EFFECT.search(name):
        return apart
    if ".qkv." in name:  # queries, keys, values
        queries, keys, values = apart.chunk(3)
        return torch.cat([queries, 0 * keys, values])
    return 0 * apart


def _of_logs(one: Path, other: Path) -> tuple[float, str]:
    """The largest difference of a value, relative to it and to a tenth of its column's mean."""
    first, second = _log(one), _log(other)
    assert [record.keys() for record in first] == [record.keys() for record in second]
    assert [record["step"] for record in first] == list(range(1, STEPS + 1))
    assert [record["step"] for record in second] == list(range(1, STEPS + 1))
    largest = (0.0, "")
    for column in dict.fromkeys(name for record in first for name in record):
        pairs = [(a[column], b[column]) for a, b in zip(first, second, strict=True) if column in a]
        least = 0.1 * sum(abs(a) for a, _ in pairs) / len(pairs)
        apart = max(abs(a - b) / max(abs(a), least, 1e-30) for a, b in pairs)
        largest = max(largest, (apart, column))
    return largest


def _log(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in SPEED} for line in lines]


def table(one: Path, other: Path) -> str:
    """The largest differences of each stage, as lines."""
    return "\n".join(
        f"{stage:<10} {what:<20} {value:.1e}  {where}"
        for stage in trained_stages(one)
        for what, (value, where) in sorted(differences(one, other, stage).items())
    )


if __name__ == "__main__":
    print(table(*map(Path, sys.argv[1:])))
