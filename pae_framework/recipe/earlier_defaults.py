"""Settings that are newer or older than this version, in the recipe of a run. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pae_framework.config import Settings
from pae_framework.errors import PluginError
from pae_framework.recipe.emit import inline
from pae_framework.recipe.nodes import Node
from pae_framework.recipe.schema import RECIPE, SchemaNode
from pae_framework.recipe.yaml_source import parse
from pae_framework.registry import Registry, UnknownComponentError


def is_of_run(file: Path) -> bool:
    """Whether a recipe is the ``resolved.yaml`` of a run, which holds every setting of its time."""
    return file.name == "resolved.yaml" and (file.parent / "run.json").is_file()


def with_former_defaults(node: Node, registry: Registry, schema: SchemaNode = RECIPE) -> Node:
    """A run's recipe in which missing settings are what the run's version did.

    See :attr:`Settings.former_defaults` and ``former_keys``. What an override replaces is not of
    the run.
    """
    use = node.child("use")
    if node.map is None or node.replaces or (use is not None and use.replaces):
        return node
    entries = {
        key: with_former_defaults(child, registry, schema.enter(key, node, registry))
        for key, child in node.map.items()
        if child.value is not None or key not in _former_keys(schema)
    }
    for key, value in _former_defaults(node, registry, schema).items():
        former, _ = parse(inline(value), position=lambda line, column: node.where)
        if former is not None:
            entries.setdefault(key, former)
    return replace(node, value=entries)


def _former_keys(schema: SchemaNode) -> frozenset[str]:
    model = schema.type
    is_settings = isinstance(model, type) and issubclass(model, Settings)
    return model.former_keys if is_settings else frozenset()


def _former_defaults(node: Node, registry: Registry, schema: SchemaNode) -> Mapping[str, Any]:
    model, use = schema.type, schema.use(node)
    if schema.component is not None:
        try:
            model = schema.component.config_class(use, registry) if use else None
        except (UnknownComponentError, PluginError):  # validation reports it
            return {}
    is_settings = isinstance(model, type) and issubclass(model, Settings)
    return model.former_defaults if is_settings else {}
