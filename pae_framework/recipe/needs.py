"""What a recipe needs from the machine it runs on, as far as it can be known before it runs."""

from __future__ import annotations

from collections.abc import Iterator

from pae_framework.config import RegularizerConfig, Settings
from pae_framework.errors import Problem
from pae_framework.recipe.components import Component
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.nodes import KeyPath, dotted
from pae_framework.recipe.sweep import expand


def missing_here(loaded: LoadedRecipe) -> list[Problem]:
    """What components of a recipe, or of any member of its sweep, do not find on this machine."""
    members = [member.loaded for member in expand(loaded)] or [loaded]
    found = dict.fromkeys(problem for member in members for problem in _missing(member))
    return list(found)


def _missing(loaded: LoadedRecipe) -> Iterator[Problem]:
    for path, component in components_of(loaded.recipe):
        if (missing := component.config.missing()) is not None:
            yield Problem(missing, dotted(path), loaded.root.place(path))


def components_of(part: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Component]]:
    """Every component below a part of a recipe, with its key path; none that is switched off."""
    if isinstance(part, Component):
        config = part.config
        if not isinstance(config, RegularizerConfig) or config.weight:
            yield path, part
    elif isinstance(part, Settings):
        for key in type(part).model_fields:
            yield from components_of(getattr(part, key), (*path, key))
    elif isinstance(part, dict):
        for key, entry in part.items():
            yield from components_of(entry, (*path, key))
