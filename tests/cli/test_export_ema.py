"""`pae export ema`: averages of other lengths after the training of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from pae_framework.cli.commands.export_ema import Averaged
from pae_framework.interop.posthoc_ema import SAVED
from pae_framework.recipe.stage_table import EXPORTED_AVERAGES
from pae_framework.testing.pytest import Pae


def test_every_stage_whose_snapshots_a_recipe_may_ask_for_is_exported() -> None:
    stages = {stage.value for stage in Averaged}
    assert stages == set(EXPORTED_AVERAGES) == SAVED.keys()


COMMAND = ("export", "ema", "run")


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("a.pt", "--length", "0.1"), "a.pt"),
        (("a.safetensors", "--length", "0.1"), "run"),
        (("there.safetensors", "--length", "0.1"), "--force"),
        (("a.safetensors", "--length", "0.3"), "--length"),
        (("a.safetensors", "--length", "0"), "--length"),
        (("a.safetensors",), "--length"),
        (("a.safetensors", "--length", "0.1", "--stage", "encoder"), "encoder"),
    ],
)
def test_wrong_input_is_one_error(
    pae: Pae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.safetensors").touch()
    result = pae(*COMMAND, *more)
    assert result.code == 2
    assert named in result.err
    assert not Path("a.safetensors").exists()


def assert_names_the_training(pae: Pae, recipe: Path) -> None:
    """After a run in the same directory with the file, and with the old generator again."""
    loads = ("generator.weights=ema.safetensors", "sample.at_steps=[]")
    trained = Path("run/generator").resolve().name
    pae("run", str(recipe), "--run-dir", "run", *loads).ok()
    refused = pae(*COMMAND, "other.safetensors", "--length", "0.2").fails(2).err
    assert "generator.weights=ema.safetensors" in refused
    assert trained in refused


@pytest.mark.slow
def test_a_run_samples_with_a_reconstructed_average(
    pae: Pae, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    snapshots = "generator.train.ema_snapshots={every: 1}"
    pae("run", str(tiny_recipe), "--run-dir", "run", snapshots).ok()
    line = pae(*COMMAND, "ema.safetensors", "--length", "0.1").ok().out
    assert line.startswith("ema.safetensors: length 0.1")
    assert_names_the_training(pae, tiny_recipe)
    loaded = ("run", str(tiny_recipe), "--run-dir", "other", "sample.at_steps=[]")
    pae(*loaded, "generator.weights=ema.safetensors", "--stages", "run/stages").ok()
    written, used = load_file("ema.safetensors"), load_file("other/generator/weights.safetensors")
    assert all((used[name] == value).all() for name, value in written.items())
