"""Latents, samples and evaluation leave the same files, however many processes share them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from chain_helpers import pae as in_new_process
from finished_run import RECIPE, Finished, pae

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
