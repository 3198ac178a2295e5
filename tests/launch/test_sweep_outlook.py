"""What a sweep says before each member: how many there are, and how long the rest takes."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pae_framework.launch import run_sweep as sweeps
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.sweep import expand
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.planned import planned_stages
from pae_framework.system.console import PlainConsole

SECONDS = 30.0
"""Of each stage."""


@dataclass
class Instant:
    """A launcher that writes the records of finished stages."""

    def run(self, loaded: LoadedRecipe, directory: RunDirectory, *_: Any) -> None:
        for planned in planned_stages(loaded, directory.store).values():
            record = directory.store / planned.folder / "stage.json"
            if not record.exists():
                record.parent.mkdir(parents=True)
                record.write_text(json.dumps({"state": "done", "seconds": SECONDS}))


def test_each_member_says_how_long_the_rest_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second and third member each repeat sample, evaluate and report: 90 s."""
    monkeypatch.setattr(sweeps, "compare_members", lambda *_: None)
    variants = "{a: {}, b: {sample.seed: 5}, c: {sample.seed: 6}}"
    loaded = load_recipe("quickstart", [f"sweep={{variants: {variants}}}"])
    console = PlainConsole(file=(shown := io.StringIO()))
    directory = RunDirectory.at(tmp_path)
    sweeps.run_sweep(loaded, directory, expand(loaded), Instant(), "pae run", console)
    text = " ".join(shown.getvalue().split())
    assert "(1 of 3)" in text
    assert "(2 of 3, about 3 min 00 s left for all)" in text
    assert "(3 of 3, about 1 min 30 s left for all)" in text
