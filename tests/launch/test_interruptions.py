"""A chain of all stages, killed and stopped again and again, ends as the undisturbed one."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interrupter import Ended, Interrupter, Interruption
from safetensors.torch import load_file

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
SPEED = {"images_per_s", "data_wait"}
MOST = 300
"""Processes that one chain may take: each interruption loses less than it gains, on average."""

Draw = Callable[[random.Random, int], Interruption]
"""Draws how a process is interrupted that does at most so many file operations."""


def by(*names: str, group: bool = False) -> Draw:
    """Each of the signals, one operation after the other."""

    def draw(rng: random.Random, operations: int) -> Interruption:
        first = rng.randint(1, operations)
        return Interruption({first + n: name for n, name in enumerate(names)}, group=group)

    return draw


def at_any_moment(rng: random.Random, operations: int) -> Interruption:
    return Interruption(after=rng.uniform(0.0, 1.5))


KILLS = (by("KILL"), by("KILL"), at_any_moment)
STOPS = (
    *(by("TERM"), by("INT"), by("HUP"), by("USR1"), by("TERM", "TERM", "HUP", "TERM")),
    *(by("TERM", group=True), by("HUP", "TERM", group=True)),
)


@dataclass(frozen=True)
class Chain:
    """The undisturbed run, and how to interrupt another."""

    folder: Path
    interrupter: Interrupter
    run: Path
    operations: int

    def pae_run(self, name: str, interruption: Interruption) -> Ended:
        return self.interrupter.run(
            self.folder / name, interruption, "run", str(self.folder / "recipe.yaml")
        )

    def interrupted(self, name: str, seed: int, draws: tuple[Draw, ...]) -> list[Ended]:
        """Start a run, interrupted each time, until it is done."""
        rng, ended = random.Random(seed), []
        for _ in range(MOST):
            drawn = rng.choice(draws)(rng, self.operations // 3)
            ended.append(self.pae_run(name, drawn))
            check_end(ended[-1], drawn)
            if ended[-1].code == 0:
                return ended
        raise AssertionError(f"not done after {MOST} processes")


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


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("interrupted")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    with Interrupter(folder) as interrupter:
        words = ("run", str(folder / "recipe.yaml"))
        ended = interrupter.run(folder / "undisturbed", Interruption(), *words)
        assert ended.code == 0, ended.output
        yield Chain(folder, interrupter, folder / "undisturbed", ended.operations)


# --- what must be equal ---------------------------------------------------------------------------


def metrics(path: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [{key: value for key, value in row.items() if key not in SPEED} for row in rows]


def arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return {name: file[name].tolist() for name in file.files}


def tensors(path: Path) -> dict[str, tuple[Any, ...]]:
    found = load_file(path)
    return {name: (value.dtype, value.tolist()) for name, value in found.items()}


READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": tensors,
    ".npz": arrays,
    ".json": read_json,
    ".jsonl": lambda path: path.read_text(encoding="utf-8"),
}
OWN = {"stage.json", "metrics.jsonl"}
"""Files with times in them."""


def results(run: Path) -> dict[str, Any]:
    """Content of the files of every stage but its earlier checkpoints, times and the report."""
    found: dict[str, Any] = {}
    for stage in sorted(path for path in run.iterdir() if path.is_symlink() and path.is_dir()):
        last = max(stage.glob("checkpoints/step-*"), default=None)
        for path in sorted(stage.rglob("*.*")):
            other = path.parent.parent.name == "checkpoints" and path.parent != last
            if path.suffix in READERS and path.name not in OWN and not other:
                found[str(path.relative_to(run))] = READERS[path.suffix](path)
    for stage in TRAINED:
        found[f"log of {stage}"] = metrics(run / stage / "metrics.jsonl")
    return found


def assert_as_undisturbed(chain: Chain, name: str) -> None:
    expected, found = results(chain.run), results(chain.folder / name)
    assert found.keys() == expected.keys()
    assert [key for key in expected if found[key] != expected[key]] == []
    for stage in TRAINED:
        folders = list((chain.folder / name / stage / "checkpoints").iterdir())
        assert len(folders) <= MAX_CHECKPOINTS, folders
    assert list((chain.folder / name).rglob("*.new")) == []  # of processes that were killed


def test_the_comparison_sees_all_kinds_of_results(chain: Chain):
    found = results(chain.run)
    last = "tokenizer/checkpoints/step-00000007"
    assert {
        *(f"{last}/{name}.safetensors" for name in ("model", "ema", "optimizer")),
        *(f"{last}/{name}.safetensors" for name in ("opponent", "opponent_optimizer")),
        *(f"{last}/state.json", "log of generator", "evaluate/results.json"),
        *("tokenizer/tokenizer.safetensors", "latents/latents_rank00_shard004.safetensors"),
        *("generator/weights-step000003.safetensors", "sample/samples-step000005-euler002.npz"),
    } <= found.keys()


# --- tests ----------------------------------------------------------------------------------------


def test_interrupted_again_and_again_it_ends_as_undisturbed(chain: Chain):
    ended = chain.interrupted("interrupted", 1, (*KILLS, *STOPS))
    assert len(ended) > 5
    assert_as_undisturbed(chain, "interrupted")


@pytest.mark.slow
def test_signals_to_all_processes_amid_a_save_stop_after_it(chain: Chain):
    """The tokenizer has loader processes. Its checkpoints are of the steps 2, 4 and 6 of 7."""
    folder = chain.folder / "group"
    for step, names in ((2, ("TERM", "TERM")), (4, ("HUP", "TERM", "USR1")), (6, ("INT", "TERM"))):
        at = dict(enumerate(names, start=1))
        amid = Interruption(at, on=f"step-{step:08d}.new/.opponent.safetensors", group=True)
        ended = chain.pae_run("group", amid)
        assert ended.code == 1, ended.output
        assert f"stopped at step {step + 1} of 7" in " ".join(ended.output.split())
        assert "Traceback" not in ended.output
        record = read_json(folder / "tokenizer" / "stage.json")
        assert (record["state"], record["progress"]["done"]) == ("stopped", step + 1)
    assert chain.pae_run("group", Interruption()).code == 0
    assert_as_undisturbed(chain, "group")


@pytest.mark.slow
def test_after_a_hundred_interruptions_it_ends_as_undisturbed(chain: Chain):
    total = 0
    for seed in range(100):
        name = f"seed{seed}"
        total += len(chain.interrupted(name, seed, (*KILLS, *STOPS))) - 1
        assert_as_undisturbed(chain, name)
        if total >= 100:
            return
