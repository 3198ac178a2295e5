"""Runs whose plugin breaks its promises, or is uninstalled between two commands."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_installed_plugins import HOOK, TERM, install

from pae_framework.errors import RecipeError
from pae_framework.launch.start import load_for_run
from pae_framework.notebook import run as run_in_notebook
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.opened import knowing_gone_plugins, open_run
from pae_framework.testing.pytest import Pae


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed distributions of this process."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    forget()


def forget() -> None:
    """As if the process started anew after a change of the installed distributions."""
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.startswith("acme_")]:
        del sys.modules[name]


def uninstall(site: Path, name: str) -> None:
    for path in site.glob(f"acme_{name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    forget()


# --- an encoder that breaks its promises ----------------------------------------------------------

ENCODER_HOOK = """
@hookimpl
def pae_register_encoders(register):
    register("NAME", target="acme_liar_net:Net", config="MODULE:Config", summary="an encoder")
"""
ENCODER_CONFIG = """
from pae_framework.config import EncoderConfig

class Config(EncoderConfig):
    def token_grid(self, image_size):
        return image_size // 4

    def token_width(self):
        return 16
"""
ENCODER = """
import torch
from torch import nn
from torch.nn import functional as F
from pae_framework.contracts import Encoder, Features

class Net(Encoder):
    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, config, image_size):
        super().__init__(config, image_size)
        self.grid, self.width, self.heads, self.patch = image_size // 4, 16, 2, 4
        self.embed = nn.Conv2d(3, 16, 4, 4)

    def forward(self, pixels):
        tokens = self.embed(pixels).flatten(2).transpose(1, 2)
        tokens = CHANGE
        return Features(tokens, tokens.mean(1))
"""
LIES = {
    "wider": ("F.pad(tokens, (0, 16))", ["(2, 16, 16)", "(2, 16, 32)"]),
    "class_token": ("F.pad(tokens, (0, 0, 1, 0))", ["(2, 16, 16)", "(2, 17, 16)"]),
    "half": ("tokens.half()", ["float32", "float16"]),
    "nan": ("torch.where(tokens > 0, torch.nan, tokens)", ["tokens", "NaN"]),
}
"""What the encoder gives, and what is said of it: the promise, and what came."""


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        pytest.param(*lie, id=name, marks=() if name == "class_token" else pytest.mark.slow)
        for name, lie in LIES.items()
    ],
)
def test_a_run_names_the_plugin_the_component_the_promise_and_what_came(
    change: str, facts: list[str], site: Path, pae: Pae
) -> None:
    install(site, "liar", ENCODER_CONFIG, ENCODER_HOOK)
    (site / "acme_liar_net.py").write_text(ENCODER.replace("CHANGE", change))
    replaced = ("tokenizer.encoder=null", "tokenizer.encoder={use: liar}")
    said = pae("run", "quickstart", *replaced, "--smoke").fails(3).err
    for fact in ("acme_liar", "acme-liar", "encoder:liar", *facts):
        assert fact in said


# --- a plugin that is gone ------------------------------------------------------------------------

USED = TERM.format("fine")


def described(path: Path) -> None:
    """A run that has not begun, of a recipe that uses the plugin."""
    loaded = load_recipe("quickstart", [USED], load_registry())
    path.mkdir(parents=True)
    RunDirectory.at(path).write(loaded, [], "pae run quickstart", starts=True)


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("run", ("run", "quickstart", USED, "--run-dir", "run")),
        ("runs/quickstart", ("run", "quickstart", USED)),
        ("run", ("sample", "run", "--out", "images")),
    ],
    ids=["run", "run-in-default-folder", "sample"],
)
def test_a_command_names_the_distribution_that_had_the_component(
    folder: str, words: tuple[str, ...], site: Path, tmp_path: Path, pae: Pae
) -> None:
    install(site, "fine", "", HOOK)
    install(site, "unused", "", HOOK)
    described(tmp_path / folder)
    uninstall(site, "fine")
    said = pae(*words).fails(2).err
    assert "'fine'" in said
    assert "acme-fine 1.0" in said
    assert "acme-unused" not in said


def test_a_later_version_without_the_component_is_not_the_one_of_the_run(
    site: Path, tmp_path: Path
) -> None:
    install(site, "fine", "", HOOK)
    described(tmp_path / "run")
    uninstall(site, "fine")
    install(site, "fine", "", HOOK.replace("NAME", "better"), version="2.0")
    with pytest.raises(RecipeError, match=r"acme-fine 1\.0"):
        open_run(tmp_path / "run", load_registry())


def test_no_plugin_is_named_that_is_still_installed(site: Path, tmp_path: Path) -> None:
    install(site, "fine", "", HOOK)
    described(tmp_path / "run")
    with pytest.raises(RecipeError, match="'absent'") as caught:
        load_for_run("quickstart", [TERM.format("absent")], load_registry(), (), tmp_path / "run")
    assert "acme-fine" not in str(caught.value)


@pytest.mark.parametrize("environment", [None, "{", "[]", '{"plugins": null}', '{"plugins": [1]}'])
def test_without_a_readable_record_of_the_environment_none_is_named(
    environment: str | None, tmp_path: Path
) -> None:
    if environment is not None:
        (tmp_path / "environment.json").write_text(environment)
    assert knowing_gone_plugins(load_registry(), tmp_path).gone == ()


def test_a_notebook_names_it_too(site: Path, tmp_path: Path) -> None:
    install(site, "fine", "", HOOK)
    described(tmp_path / "run")
    uninstall(site, "fine")
    with pytest.raises(RecipeError, match=r"acme-fine 1\.0"):
        run_in_notebook("quickstart", [USED], run_dir=tmp_path / "run")
