"""The JSON schema of recipes, with the built-in components."""

from __future__ import annotations

import json

from pae_framework.plugins import load_registry
from pae_framework.recipe.json_schema import recipe_schema
from pae_framework.registry import Registry

NAME = "recipe.schema.json"


def text() -> str:
    """The file's text."""
    return json.dumps(recipe_schema(built_in()), indent=1, ensure_ascii=False) + "\n"


def built_in() -> Registry:
    """The built-in components, whatever else is installed."""
    installed = load_registry()
    registry = Registry([plugin for plugin in installed.plugins if plugin.built_in])
    for spec in installed.specs():
        if spec.built_in:
            registry.add(spec)
    return registry
