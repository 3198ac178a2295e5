"""A valid recipe together with its sources. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pae_framework.errors import Problem, RecipeError
from pae_framework.recipe.consistency import inconsistencies
from pae_framework.recipe.emit import lines, to_yaml
from pae_framework.recipe.merge import resolve_removals
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath, Node, dotted
from pae_framework.recipe.shares import steps_of_shares
from pae_framework.recipe.validate import validate
from pae_framework.registry import Registry

DEFAULT = "default"


@dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe and its sources."""

    recipe: Recipe
    source: Path
    """The file it was read from."""
    text: str
    """Contents of that file."""
    root: Node
    """File, parents and overrides merged into one tree with positions."""
    overrides: tuple[str, ...]
    """``key.path=value`` as given on the command line."""
    registry: Registry

    @property
    def data(self) -> dict[str, Any]:
        """The merged recipe without defaults."""
        written: dict[str, Any] = self.root.plain()
        return written

    def resolved(self) -> dict[str, Any]:
        """The recipe with all defaults, in JSON types. Loading it gives an equal recipe."""
        return self.recipe.model_dump(mode="json")

    def resolved_yaml(self) -> str:
        """:meth:`resolved` as YAML, with absolute paths of the data: it runs in any folder."""
        resolved = self.resolved()
        data = self.recipe.data
        for split, source in (("train", data.train), ("test", data.test)):
            anchored = source.config.anchored().model_dump(mode="json")
            resolved["data"][split].update({key: anchored[key] for key in source.config.paths})
        return to_yaml(resolved)

    @cached_property
    def origins(self) -> Mapping[KeyPath, str]:
        """Where each value of :meth:`resolved` was set.

        Each is ``file:line:column``, ``command line`` or ``default``.
        """
        leaves = [path for _, path in lines(self.resolved()) if path is not None]
        return {path: _origin(path, self.root) for path in leaves}


def build(
    root: Node, source: Path, text: str, overrides: tuple[str, ...], registry: Registry
) -> LoadedRecipe:
    """Validate a merged tree and check that its sections are consistent.

    Raises:
        RecipeError: lists every problem with its position.
        PluginError: the only problems are broken plugins.
    """
    root = steps_of_shares(resolve_removals(root, registry))
    recipe = validate(root, registry)
    problems = [
        Problem(found.message, dotted(found.path), root.position(found.path), found.hint)
        for found in inconsistencies(recipe)
    ]
    if problems:
        raise RecipeError(problems)
    return LoadedRecipe(recipe, source, text, root, overrides, registry)


def _origin(path: KeyPath, root: Node) -> str:
    written = root.find(path)
    if written is not None:
        return written.where
    component = root.find(path[:-1])
    if path[-1] in ("use", "extends") and component is not None:  # from the short form or the label
        return component.where if isinstance(component.value, str) else component.key_where
    return DEFAULT
