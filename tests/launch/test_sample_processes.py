"""Sample sets drawn by several processes: those of one, whoever drew which part."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from rich.console import Console

from pae_framework.errors import StoppedError
from pae_framework.launch.local import LocalLauncher
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.sampling import parallel as sample_parts
from pae_framework.sampling import sample_set as image_sets

SHORT = (
    *("extractor=null", "evaluate=null", "runtime.threads=1", "generator.train.steps=3"),
    *("generator.train.keep_steps=[1]", "sample.at_steps=[1]", "sample.batch_size=4"),
    *(f"{part}.train.steps=1" for part in ("tokenizer.encoder", "tokenizer")),
)


def sampled(folder: Path, *overrides: str) -> None:
    loaded = load_recipe(folder / "tiny.yaml", (*SHORT, *overrides), load_registry())
    directory = RunDirectory.at(folder / "runs" / "tiny")
    LocalLauncher(Console(quiet=True)).run(loaded, directory, "pae run", until="sample")


def files(stage: Path) -> dict[str, object]:
    """Images and labels of every npz as bytes, and the list of the sets."""
    found: dict[str, object] = {"list": json.loads((stage / "sets.json").read_text())}
    for path in stage.glob("*.npz"):
        found[path.name] = [tensor.numpy().tobytes() for tensor in image_sets.open_set(path)]
    return found


def test_a_stop_loses_no_part_and_the_sets_are_those_of_one_process(
    tmp_path: Path, tiny_text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three sets of 20 images, in parts of 8, 8 and 4; stopped when the first part is done."""
    monkeypatch.setattr(image_sets, "PART", 8)
    (tmp_path / "tiny.yaml").write_text(tiny_text, encoding="utf-8")
    sampled(tmp_path)
    stage = tmp_path / "runs" / "tiny" / "sample"
    alone = files(stage)
    assert len(alone) == 4
    shutil.rmtree(stage.resolve())

    do_items = sample_parts.do_items

    def stopped(context, worker, items, processes, show):
        assert (items, processes) == (9, 2)

        def terminated(done):
            if done == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            show(done)

        return do_items(context, worker, items, processes, terminated)

    with monkeypatch.context() as patch:
        patch.setattr(sample_parts, "do_items", stopped)
        with pytest.raises(StoppedError, match=r"stopped with [12] of 9 parts"):
            sampled(tmp_path, "sample.processes=2")
    stage = stage.resolve()
    written = {path: path.stat().st_mtime_ns for path in stage.glob("*.parts/*.npy")}
    assert len(written) in (1, 2)

    def here(*arguments):
        raise AssertionError("it is the other processes that draw")

    def kept(context, worker, items, processes, show):
        done = do_items(context, worker, items, processes, show)
        assert {path: path.stat().st_mtime_ns for path in written} == written
        return done

    monkeypatch.setattr(sample_parts, "do_items", kept)
    monkeypatch.setattr("pae_framework.sampling.sampler.Sampler.images", here)
    sampled(tmp_path, "sample.processes=2")
    assert files(stage) == alone
    assert list(stage.glob("*.parts")) == []
