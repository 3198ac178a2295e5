"""Sample sets of several processes equal those of one, whichever process sampled a chunk."""

from __future__ import annotations

import json
import os
import signal
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from rich.console import Console

from pae_framework.errors import StoppedError
from pae_framework.execution.context import StageContext
from pae_framework.launch.local import LocalLauncher
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.opened import open_run
from pae_framework.sampling.sample_set import open_set
from pae_framework.sampling.sampler import Sampler
from pae_framework.stages import sample

SHORT = (
    *("extractor=null", "evaluate=null", "runtime.threads=1", "generator.train.steps=3"),
    *("generator.train.keep_steps=[1]", "sample.at_steps=[1]", "sample.batch_size=4"),
    *(f"{part}.train.steps=1" for part in ("tokenizer.encoder", "tokenizer")),
)


CHUNK = 8


def sampled(folder: Path, *overrides: str) -> StageContext:
    """Run everything up to the sample stage; returns a context of that stage."""
    loaded = load_recipe(folder / "tiny.yaml", (*SHORT, *overrides), load_registry())
    directory = RunDirectory.at(folder / "runs" / "tiny")
    LocalLauncher(Console(quiet=True)).run(loaded, directory, "pae run", until="sample")
    opened = open_run(directory.path, load_registry())
    generator = StageContext.of_finished_run(opened, "generator", Console(quiet=True))
    return replace(generator, planned=opened.plan["sample"])


class Elsewhere(StageContext):
    """The sample stage in another folder; notes when its chunks were written as progress begins."""

    written: ClassVar[list[dict[Path, int]]] = []

    @property
    def directory(self) -> Path:
        return self.run.path / "again"

    def progress(self, total, done=0):
        chunks = self.directory.glob("*.parts/*.npy")
        self.written.append({path: path.stat().st_mtime_ns for path in chunks})
        return shown_by(lambda done, note="": None)


class Stopped(Elsewhere):
    """Is asked to stop when the first chunk is done."""

    def progress(self, total, done=0):
        def update(done, note=""):
            if done == total // 9:
                os.kill(os.getpid(), signal.SIGTERM)

        return shown_by(update)


@contextmanager
def shown_by(update):
    yield SimpleNamespace(update=update)


def of_type(kind: type[Elsewhere], context: StageContext) -> Elsewhere:
    """The context as another type, with two processes."""
    settings = context.recipe.sample.model_copy(update={"processes": 2})
    values = {field.name: getattr(context, field.name) for field in fields(context)}
    recipe = context.recipe.model_copy(update={"sample": settings})
    return kind(**{**values, "recipe": recipe})


class Idle(Sampler):
    """A sampler of this process, which leaves sampling to the others."""

    def images(self, *arguments: object) -> object:
        raise AssertionError("the other processes sample")


def files(stage: Path) -> dict[str, object]:
    """Images and labels of every npz as bytes, and the list of the sets."""
    found: dict[str, object] = {"list": json.loads((stage / "sets.json").read_text())}
    for path in stage.glob("*.npz"):
        found[path.name] = [tensor.numpy().tobytes() for tensor in open_set(path)]
    return found


def idle(context: StageContext) -> Sampler:
    return Idle(**vars(Sampler.of(context)))


def test_a_stop_loses_no_chunk_and_the_sets_are_those_of_one_process(
    tmp_path: Path, tiny_text: str
) -> None:
    """Three sets of 20 images, in chunks of 8, 8 and 4; stopped when the first chunk is done."""
    (tmp_path / "tiny.yaml").write_text(tiny_text, encoding="utf-8")
    context = sampled(tmp_path)
    alone = files(context.directory)
    assert len(alone) == 4

    stopped = of_type(Stopped, context)
    stopped.directory.mkdir()
    with pytest.raises(StoppedError) as stop:
        sample.run(stopped, idle, CHUNK)
    assert "of 9 chunks" in str(stop.value)
    assert not (stopped.directory / "sets.json").exists()
    written = {path: path.stat().st_mtime_ns for path in stopped.directory.glob("*.parts/*.npy")}
    assert len(written) in (1, 2)

    Elsewhere.written.clear()
    sample.run(of_type(Elsewhere, context), idle, CHUNK)
    before, after = Elsewhere.written  # the others sample, this process joins
    assert before == written
    assert len(after) == 9
    assert {path: after[path] for path in written} == written
    assert files(stopped.directory) == alone
    assert list(stopped.directory.glob("*.parts")) == []
