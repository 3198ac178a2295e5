"""Sample sets made of chunks: whoever sampled a chunk, and however often the stage was ended."""

from __future__ import annotations

import json
import os
import random
import signal
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from sampled_run import SampledRun

from pae_framework.config import LatentShape
from pae_framework.errors import StoppedError
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.registry import Registry
from pae_framework.sampling import chunks
from pae_framework.sampling.sample_set import open_set
from pae_framework.sampling.sampler import Sampler
from pae_framework.stages import sample
from pae_framework.world import ONE_PROCESS, SharedItems, World

CHUNK = 8


class MarkedSampler(Sampler):
    """Images of weights, label and sample number; image i takes 10 + i evaluations."""

    loaded: ClassVar[list[str]] = []
    asked: ClassVar[list[int]] = []

    @classmethod
    def of(cls, context: Any) -> MarkedSampler:
        tokenizer: Any = SimpleNamespace(latent=LatentShape(4, 4))
        model: Any = SimpleNamespace(num_classes=10)
        return cls(model, tokenizer, None)  # type: ignore[arg-type]

    def load(self, weights: Path) -> None:
        self.loaded.append(weights.name)

    def images(self, labels, indices, settings):
        for index in indices.tolist():
            self.asked.append(index)
            self.count.add(1, 10 + index, 2)
        values = len(self.loaded[-1]) + settings.steps + 10 * labels + indices
        return values.byte().view(-1, 1, 1, 1).expand(-1, 3, 4, 4)


@dataclass
class Stage(SampledRun):
    """What the sample stage uses of a context; ``shown`` is what its progress display shows."""

    world: World = ONE_PROCESS
    shown: list[tuple[int, int]] = field(default_factory=list)
    stop_at: int | None = None

    @contextmanager
    def progress(self, total, done=0):
        def update(done, note=""):
            self.shown.append((done, total))
            if done == self.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)

        yield SimpleNamespace(update=update)


class ShuffledWorld(World):
    """One process, which takes items in a random order, as several would finish them."""

    def share(self, items: int) -> SharedItems:
        order = list(range(items))
        random.Random(0).shuffle(order)

        class Shuffled(SharedItems):
            def __iter__(self):
                yield from order

        return Shuffled(items)


DOPRI5 = ("sample.solver=dopri5", "sample.few_steps=[]")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


@pytest.fixture
def make_stage(tmp_path: Path, tiny_recipe: Path, registry: Registry):
    """Contexts of the stage, each in a folder whose sets no other folder can reuse."""

    def make(folder: str, *overrides: str, **facts: Any) -> Stage:
        recipe = load_recipe(tiny_recipe, ["sample.batch_size=4", *overrides], registry).recipe
        stage = Stage(
            tmp_path / "stages", recipe=recipe, directory=tmp_path / folder / "s", **facts
        )
        early = stage.results("generator").folder / "weights-step000003.safetensors"
        early.write_text("early")
        return stage

    return make


def sampled(stage: Stage) -> None:
    MarkedSampler.asked.clear()
    sample.run(stage, MarkedSampler.of, CHUNK)  # type: ignore[arg-type]


def files(stage: Stage) -> dict[str, bytes]:
    """All files of the stage."""
    paths = (path for path in stage.directory.rglob("*") if path.is_file())
    return {str(path.relative_to(stage.directory)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("overrides", [(), DOPRI5], ids=["euler", "dopri5"])
def test_the_order_of_the_chunks_changes_no_file(make_stage, overrides):
    """Sets of 20 images, in chunks of 8, 8 and 4."""
    alone = make_stage("alone", *overrides)
    sampled(alone)
    shuffled = make_stage("shuffled", *overrides, world=ShuffledWorld())
    sampled(shuffled)
    assert files(shuffled) == files(alone)
    names = {name.rpartition(".")[2] for name in files(alone)}
    assert names == {"npz", "json"}  # no chunks are left


@pytest.mark.parametrize("overrides", [(), DOPRI5], ids=["euler", "dopri5"])
def test_a_stage_that_is_stopped_after_every_chunk_ends_as_an_undisturbed_one(
    make_stage, overrides
):
    alone = make_stage("alone", *overrides)
    sampled(alone)
    whole = len(MarkedSampler.asked)
    total = 20 * len(json.loads((alone.directory / "sets.json").read_bytes()))
    asked = 0
    for at in [at for start in range(0, total, 20) for at in (start + 8, start + 16, start + 20)]:
        stage = make_stage("stopped", *overrides, stop_at=at if at < total else None)
        if at < total:
            with pytest.raises(StoppedError):
                sampled(stage)
        else:
            sampled(stage)
        asked += len(MarkedSampler.asked)
    assert files(stage) == files(alone)
    assert asked == whole  # no image was sampled twice


def test_evaluations_are_those_of_all_images(make_stage):
    """Image i takes 10 + i: the mean over 20 images is 19.5."""
    stage = make_stage("alone", *DOPRI5)
    sampled(stage)
    entries = json.loads((stage.directory / "sets.json").read_bytes())
    protocols = [entry["protocol"] for entry in entries]
    assert [(x["evaluations"], x["guided_evaluations"]) for x in protocols] == [(19.5, 2.0)] * 2


@pytest.mark.parametrize("function", ["join_chunks", "write_json", "remove_chunks"])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_process_killed_while_it_joins_a_set_loses_nothing(
    make_stage, monkeypatch, function, done
):
    alone = make_stage("alone", *DOPRI5)
    sampled(alone)
    whole = getattr(chunks, function)

    def killed(*arguments):
        if done:
            whole(*arguments)
        raise KeyboardInterrupt

    stage = make_stage("killed", *DOPRI5)
    with monkeypatch.context() as patched:
        patched.setattr(chunks, function, killed)
        with pytest.raises(KeyboardInterrupt):
            sampled(stage)
    sampled(stage)
    assert files(stage) == files(alone)
    assert len(MarkedSampler.asked) == 20  # only the second set's


@pytest.mark.parametrize("damage", ["missing", "empty", "of another chunk", "no number"])
def test_a_chunk_without_its_evaluations_is_sampled_again(make_stage, damage):
    """As an earlier version left it."""
    alone = make_stage("alone", *DOPRI5)
    sampled(alone)
    stage = make_stage("resumed", *DOPRI5, stop_at=16)
    with pytest.raises(StoppedError):
        sampled(stage)
    (kept,) = stage.directory.glob("*.parts/00000008.json")
    if damage == "missing":
        kept.unlink()
    elif damage == "empty":
        kept.write_text("")
    else:
        content = {"samples": 7 if damage == "of another chunk" else "x", "total": 1, "guided": 1}
        kept.write_text(json.dumps(content))
    stage.stop_at = None
    sampled(stage)
    assert MarkedSampler.asked[:12] == list(range(8, 20))
    assert files(stage) == files(alone)


def test_progress_counts_the_images_of_all_sets(make_stage):
    stage = make_stage("alone")
    sampled(stage)
    shown = [done for done, total in stage.shown]
    assert {total for _, total in stage.shown} == {60}
    assert shown == sorted(shown)
    assert {4, 8, 20, 24, 60} <= set(shown)


def test_a_set_can_be_read_as_soon_as_its_chunks_are_there(make_stage):
    stage = make_stage("alone", stop_at=28)
    with pytest.raises(StoppedError):
        sampled(stage)
    (entry,) = json.loads((stage.directory / "sets.json").read_bytes())
    images, labels = open_set(stage.directory / entry["file"])
    assert len(images) == len(labels) == 20
    assert torch.equal(labels.sort().values, torch.arange(10).repeat_interleave(2))
