"""The result of a consistency check. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from pae_framework.recipe.nodes import KeyPath


@dataclass(frozen=True)
class Inconsistency:
    """A conflict between two values of a recipe, each of which is valid alone."""

    path: KeyPath
    """The key to report it at."""
    message: str
    """The fact: the value found and what it conflicts with."""
    hint: str = ""
    """The remedy: ``set <key>=<value>``."""
