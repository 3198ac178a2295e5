"""Sample sets of several processes equal those of one, whichever process sampled a chunk."""

from __future__ import annotations

import json
import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from sampled_run import SampledRun, no_progress

from pae_framework.config import LatentShape
from pae_framework.errors import StoppedError
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.sampling.sample_set import open_set
from pae_framework.sampling.sampler import Sampler
from pae_framework.stages import sample

CHUNK = 8


class PidSampler(Sampler):
    """Images of weights, label and sample number; writes a file named by the sampling process."""

    context: ClassVar[Any]
    loaded: ClassVar[list[str]] = []

    @classmethod
    def of(cls, context):
        cls.context = context
        tokenizer: Any = SimpleNamespace(latent=LatentShape(4, 4))
        return cls(SimpleNamespace(num_classes=10), tokenizer, None)

    def load(self, weights):
        self.loaded.append(weights.name)

    def images(self, labels, indices, settings):
        (self.context.pids / str(os.getpid())).touch()
        values = len(self.loaded[-1]) + settings.steps + 10 * labels + indices
        return values.byte().view(-1, 1, 1, 1).expand(-1, 3, 4, 4)


@dataclass
class Stage(SampledRun):
    """What the sample stage and its processes use of a context."""

    update_record: Any = None
    device = torch.device("cpu")
    planned = SimpleNamespace(name="sample")

    @property
    def pids(self) -> Path:
        return self.store / "pids"

    @contextmanager
    def progress(self, total, done=0):
        yield SimpleNamespace(update=lambda done, note="": self.shown(total, done))

    def shown(self, total, done):
        pass


@dataclass
class Stopped(Stage):
    """Gets a signal when the first chunk is done."""

    def shown(self, total, done):
        if done == total // 9:
            os.kill(os.getpid(), signal.SIGTERM)


@dataclass
class Watched(Stage):
    """Notes when each chunk was written, whenever a progress display begins."""

    written: ClassVar[list[dict[Path, int]]] = []

    def progress(self, total, done=0):
        self.written.append(times(self.directory))
        return no_progress(total)


def times(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in directory.glob("*.parts/*.npy")}


def files(stage: Path) -> dict[str, object]:
    """Images and labels of every npz as bytes, and the list of the sets."""
    found: dict[str, object] = {"list": json.loads((stage / "sets.json").read_text())}
    for path in stage.glob("*.npz"):
        found[path.name] = [tensor.numpy().tobytes() for tensor in open_set(path)]
    return found


def test_a_stopped_and_resumed_stage_of_two_processes_equals_that_of_one(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    """Three sets of 20 images, in chunks of 8, 8 and 4; stopped when the first chunk is done."""
    recipe = load_recipe(tiny_recipe, ["sample.batch_size=4"], load_registry()).recipe
    alone = Stage(tmp_path / "stages", recipe=recipe, directory=tmp_path / "alone")
    early = alone.results("generator").folder / "weights-step000003.safetensors"
    early.write_text("early")
    alone.pids.mkdir()
    sample.run(alone, PidSampler.of, CHUNK)
    expected = files(alone.directory)
    assert len(expected) == 4
    (pid,) = alone.pids.iterdir()
    assert pid.name == str(os.getpid())
    pid.unlink()

    assert recipe.sample is not None
    parallel = recipe.sample.model_copy(update={"processes": 2})
    recipe = recipe.model_copy(update={"sample": parallel})
    stopped = Stopped(alone.store, recipe=recipe, directory=tmp_path / "again" / "stage")
    with pytest.raises(StoppedError) as stop:
        sample.run(stopped, PidSampler.of, CHUNK)
    assert "of 9 chunks" in str(stop.value)
    assert not (stopped.directory / "sets.json").exists()
    written = times(stopped.directory)
    assert len(written) in (1, 2)

    Watched.written.clear()
    resumed = Watched(**vars(stopped))
    sample.run(resumed, PidSampler.of, CHUNK)
    before, after = Watched.written  # the processes sample, then this one joins
    assert before == written
    assert len(after) == 9
    assert {path: after[path] for path in written} == written
    assert files(stopped.directory) == expected
    assert list(stopped.directory.glob("*.parts")) == []
    assert str(os.getpid()) not in {path.name for path in alone.pids.iterdir()}
