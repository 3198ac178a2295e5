"""The smoke version of every shipped recipe: all stages, on the CPU, without network."""

from __future__ import annotations

import io
import json
import socket
from pathlib import Path

import pytest

from pae_framework.launch.local import LocalLauncher
from pae_framework.launch.run_sweep import run_sweep
from pae_framework.recipe.library import shipped
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.smoke import smoke_recipe
from pae_framework.recipe.sweep import expand
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.status import run_status
from pae_framework.system.console import PlainConsole

NAMES = [name for name, _, _ in shipped()]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every network access fail."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a smoke run accessed the network")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared folder of stages: the 800-epoch variants reuse the tokenizers of the others."""
    return tmp_path_factory.mktemp("stages")


def run_loaded(loaded: LoadedRecipe, path: Path, store: Path) -> None:
    console = PlainConsole(file=io.StringIO())
    launcher = LocalLauncher(console)
    if loaded.recipe.sweep is None:
        launcher.run(loaded, RunDirectory.at(path, store), "pae run --smoke")
    else:
        members = expand(loaded)
        run_sweep(loaded, RunDirectory.at(path), members, launcher, "pae run --smoke", console)


WITHOUT_INCEPTION = ("evaluate.adm=null", "evaluate.reconstruction.weights=null")
"""Its covariances take more than a minute."""


def marks(name: str) -> tuple[pytest.MarkDecorator, ...]:
    """Recipes that are others with more epochs, images or variants are slow tests."""
    like_others = name.endswith(("_800ep", "shapes_ablation", "dit_dh_s", "kl_vae_f16d32"))
    return (pytest.mark.slow,) if like_others or name.startswith("paper/") else ()


def overrides_of(name: str) -> tuple[str, ...]:
    """Without Inception, if it is a recipe for ImageNet."""
    of_imagenet = "_full" in name or name.endswith(("rae_dinov2", "f16d32", "gae"))
    return WITHOUT_INCEPTION if of_imagenet or name.startswith("paper/") else ()


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        *(pytest.param(name, overrides_of(name), marks=marks(name)) for name in NAMES),
        pytest.param("dinov2_full", (), marks=pytest.mark.slow, id="dinov2_full with Inception"),
    ],
)
def test_every_shipped_recipe_runs_small_from_end_to_end(
    name: str, overrides: tuple[str, ...], tmp_path: Path, store: Path
) -> None:
    original = load_recipe(name, overrides)
    run_loaded(smoke_recipe(original), tmp_path, store)
    assert (tmp_path / "report.html").is_file()
    members = run_status(tmp_path)
    assert len(members) == (1 if original.recipe.sweep is None else 2)
    for stages in members.values():
        assert {stage.state for stage in stages} == {"done"}
        assert stages[-1].stage == "report"
    if original.recipe.evaluate:
        results = tmp_path if original.recipe.sweep else tmp_path / "evaluate"
        assert json.loads((results / "results.json").read_text(encoding="utf-8"))
    # its resolved recipe is the same run
    again = load_recipe(tmp_path / "resolved.yaml")
    assert again.recipe == smoke_recipe(original).recipe
