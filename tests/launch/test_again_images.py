"""``pae run --again`` of a recipe whose images are files: stages are found by their contents.

The stages only write a file, so a whole run takes a second.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from quickstart_stages import QUICKSTART_STAGES

from pae_framework.errors import RunError
from pae_framework.execution.context import StageContext
from pae_framework.launch import again, start
from pae_framework.launch.start import RunOptions, run_recipe
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.stage_table import Stage
from pae_framework.runs import directory, results
from pae_framework.runs.plan import plan
from pae_framework.runs.planned import planned_stages
from pae_framework.runs.record import StageRecord
from pae_framework.system.console import PlainConsole

REGISTRY = load_registry()
STORE = Path("run/stages")
FROM_TOKENIZER = QUICKSTART_STAGES[QUICKSTART_STAGES.index("tokenizer") :]


def write_image_folder() -> None:
    for split in ("train", "test"):
        for number in range(150):
            path = Path(f"data/{split}/{'abc'[number % 3]}/{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), number).save(path)


def write_idx() -> None:
    Path("data").mkdir()
    for split in ("train", "t10k"):
        images = b"\0\0\x08\3" + struct.pack(">3I", 150, 8, 8) + bytes(150 * 64)
        labels = b"\0\0\x08\1" + struct.pack(">I", 150) + bytes(x % 3 for x in range(150))
        Path(f"data/{split}-images-idx3-ubyte").write_bytes(images)
        Path(f"data/{split}-labels-idx1-ubyte").write_bytes(labels)


SOURCES: dict[str, Callable[[], None]] = {"image_folder": write_image_folder, "idx": write_idx}


class Runs:
    """Runs the quickstart on a data source, and knows which stages ran."""

    def __init__(self, use: str):
        self.loaded: LoadedRecipe = load_recipe(
            "quickstart",
            (
                *(f"data.{x}={{use: {use}, folder: data, split: {x}}}" for x in ("train", "test")),
                "evaluate.manifold.ssc=false",
            ),
            REGISTRY,
        )
        self.ran: list[str] = []

    def __call__(self, *names: str) -> list[str]:
        self.ran.clear()
        console = PlainConsole(file=io.StringIO(), width=200)
        run_recipe(self.loaded, RunOptions(run_dir=Path("run"), again=names), console)
        return list(self.ran)

    def read(self, context: StageContext) -> None:
        self.ran.append(context.planned.name)
        (context.directory / "out.bin").write_bytes(b"x")


@pytest.fixture(params=SOURCES)
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    SOURCES[request.param]()
    runs = Runs(request.param)
    monkeypatch.setattr(Stage, "function", lambda stage: runs.read)
    monkeypatch.setattr(start, "lacking_resources", lambda *args, **kwargs: [])
    return runs


def test_the_named_stage_and_those_that_read_it_run_again(run: Runs):
    assert run() == QUICKSTART_STAGES
    assert run("tokenizer") == FROM_TOKENIZER
    assert run("report", "evaluate") == ["evaluate", "report"]
    assert run() == []


def test_stages_of_an_earlier_version_run_again_too(run: Runs, monkeypatch: pytest.MonkeyPatch):
    """At the first visit they are found under the fingerprint that they had then."""
    # These stages left only a file of the test.
    monkeypatch.setattr(directory, "describe_fault", lambda *arguments: None)
    run()
    shutil.rmtree(STORE)
    for stage in plan(run.loaded.recipe, REGISTRY):
        record = StageRecord(STORE / stage.folder)
        record.path.mkdir(parents=True)
        record.file.write_text(json.dumps({"state": "done"}))
    assert run("encoder") == QUICKSTART_STAGES[1:]
    assert run("tokenizer") == FROM_TOKENIZER  # and once they are identified
    assert run() == []


def test_a_named_stage_that_stays_done_is_an_error(run: Runs, monkeypatch: pytest.MonkeyPatch):
    run()
    folder = planned_stages(run.loaded, STORE)["tokenizer"].folder
    monkeypatch.setattr(again.StageRecord, "outdate", lambda record: None)
    with pytest.raises(RunError, match=folder):
        run("tokenizer")
    assert run.ran == []


def test_the_results_of_a_copied_run_are_read_once(run: Runs, monkeypatch: pytest.MonkeyPatch):
    read: list[Path] = []
    digest = results.file_digest
    monkeypatch.setattr(results, "file_digest", lambda path: (read.append(path), digest(path))[1])
    run()
    for path in STORE.glob("*/out.bin"):
        os.utime(path, (1, 1))
    for reads in (len(QUICKSTART_STAGES), 0):
        read.clear()
        results._digests.clear()  # as in another process
        assert run() == []
        assert len(read) == reads
