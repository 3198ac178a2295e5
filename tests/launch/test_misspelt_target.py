"""A component whose class does not import is reported before the first stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from pae_framework.errors import PluginError
from pae_framework.launch.start import RunOptions, dry_run_recipe, run_recipe
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.registry import ComponentSpec, Plugin, Registry

SECTIONS = {
    "evaluator": "evaluate.misspelt={}",
    "regularizer": "tokenizer.regularizers.misspelt={}",
    "generator": "generator={use: misspelt, train: {steps: 10}}",
}
CONFIGS = {kind: f"pae_framework.config:{kind.capitalize()}Config" for kind in SECTIONS}


@pytest.fixture(params=["no_such_module:Term", "pae_evaluators.manifold:Manyfold"])
def registry(request: pytest.FixtureRequest) -> Registry:
    """The installed components, and some whose target is misspelt."""
    registry = load_registry()
    plugin = Plugin("acme", __name__, "acme", "1")
    for kind, config in CONFIGS.items():
        registry.add(ComponentSpec(kind, "misspelt", request.param, config, "", plugin))
    return registry


@pytest.mark.parametrize("kind", SECTIONS)
def test_neither_a_run_nor_a_dry_run_starts(kind: str, registry: Registry, tmp_path: Path) -> None:
    loaded = load_recipe(
        "quickstart", [SECTIONS[kind], "sample.at_steps=[]", "sample.guidance=null"], registry
    )
    options = RunOptions(run_dir=tmp_path / "run")
    for start in (run_recipe, dry_run_recipe):
        with pytest.raises(PluginError, match=f"acme.*{kind}:misspelt"):
            start(loaded, options)
    assert not list(tmp_path.glob("run/stages/*/stage.json"))


def test_a_term_that_is_off_is_not_imported(registry: Registry, tmp_path: Path) -> None:
    loaded = load_recipe("quickstart", ["tokenizer.regularizers.misspelt.weight=0"], registry)
    assert dry_run_recipe(loaded, RunOptions(run_dir=tmp_path / "run"))
