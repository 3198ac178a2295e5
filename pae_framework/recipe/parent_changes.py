"""What a recipe changes in what it extends. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pae_framework.errors import RecipeError
from pae_framework.recipe.emit import inline
from pae_framework.recipe.load import read_recipe
from pae_framework.recipe.merge import merge, resolve_removals
from pae_framework.recipe.nodes import KeyPath, Node, dotted
from pae_framework.registry import Registry


def changes_to_parent(
    path: Path, overrides: Sequence[str], registry: Registry
) -> list[tuple[str, str, str]]:
    """Keys at which a recipe and its overrides differ from what it extends.

    Returns:
        Key path, the parent's value and the recipe's, as YAML; empty where there is none. No entry
        if the recipe extends nothing.

    Raises:
        RecipeError: a file cannot be read, or there is no such parent.
    """
    written = read_recipe(path, overrides)
    if written.problems:
        raise RecipeError(list(written.problems))
    if written.parents is None:
        return []
    before, after = _written(written.parents, registry), _written(written.root, registry)
    return [
        (dotted(key), before.get(key, ""), after.get(key, ""))
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
    ]


def _written(root: Node, registry: Registry) -> Mapping[KeyPath, str]:
    """Values by key path. Merged with itself, a tree has no short forms left."""
    return dict(_leaves(resolve_removals(merge(root, root), registry).plain()))


def _leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path, inline(value)
