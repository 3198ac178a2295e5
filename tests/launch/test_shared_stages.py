"""Latents, samples and evaluation leave the same files, however many processes share them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from chain_helpers import pae as in_new_process
from finished_run import RECIPE, Finished, pae
from PIL import Image

from pae_framework.testing.pytest import Result

SHARED = ("latents", "sample", "evaluate")
CHANGES = (
    "latents.shard_size=7",  # seven shards
    "sample.solver=dopri5",  # its evaluations are counted
    "sample.few_steps=[]",
    "data.test.count=600",  # batches of 250, 250 and 100
)


def command(run: Path) -> list[str | Path]:
    return ["run", RECIPE, *CHANGES, "--run-dir", run]


def files(run: Path) -> dict[str, bytes]:
    """Contents of all files of the shared stages but their records, which have times."""
    found = {}
    for stage in SHARED:
        folder = (run / stage).resolve()
        for path in folder.rglob("*"):
            if path.is_file() and path.name not in ("stage.json", ".lock"):
                found[f"{stage}/{path.relative_to(folder)}"] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def alone(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copytree(finished.folder / "run", folder / "run", symlinks=True)
    with pytest.MonkeyPatch.context() as monkeypatch:
        pae(command(folder / "run"), folder, monkeypatch).ok()
    return folder / "run"


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_leave_the_same_files(
    alone: Path, tmp_path: Path, processes: int
) -> None:
    run = tmp_path / "run"
    shutil.copytree(alone, run, symlinks=True)
    for stage in SHARED:
        shutil.rmtree((run / stage).resolve())
    in_new_process(*command(run), "--processes", str(processes), cwd=tmp_path).ok()

    expected, found = files(alone), files(run)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert sum("latents_rank" in name for name in expected) == 7
    assert {"evaluate/results.json", "evaluate/reconstruction/per_image.jsonl"} < expected.keys()
    record = json.loads((run / "latents" / "stage.json").read_bytes())
    assert record["machine"]["processes"] == processes


@pytest.mark.slow
def test_damaged_images_are_listed_and_counted_as_by_one_process(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 8)):
        for number in range(count):
            path = tmp_path / split / f"class{number % 2}" / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    for name in ("class0/02.png", "class1/13.png", "class1/15.png"):
        (tmp_path / "train" / name).write_bytes(b"no image")

    def run(name: str, processes: int, allowed: int) -> Result:
        data = [f"data.{x}={{use: image_folder, folder: {x}}}" for x in ("train", "test")]
        changes = (*data, f"data.max_damaged={allowed}", "latents.shard_size=5")
        changes += ("evaluate.manifold=null", "generator.train.batch_size=4")
        options = ("--run-dir", name, "--processes", str(processes))
        return in_new_process("run", RECIPE, *changes, *options, cwd=tmp_path)

    def lists(name: str) -> dict[str, list[str]]:
        paths = (tmp_path / name).glob("stages/*/damaged*")
        return {str(x.relative_to(tmp_path / name)): x.read_text().splitlines() for x in paths}

    run("alone", 1, 3).ok()
    run("together", 3, 3).ok()
    assert lists("together") == lists("alone")
    latents = next(lines for name, lines in lists("alone").items() if "latents" in name)
    assert [line.split("\t")[0] for line in latents] == ["1", "18", "19"]

    refused = run("refused", 3, 2).fails(1)
    assert "max_damaged" in refused.err
