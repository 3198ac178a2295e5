"""What a check between sections of a recipe returns, and what several checks ask. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pae_framework.config import RegularizerConfig
from pae_framework.recipe.models import Recipe
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


def active_regularizers(recipe: Recipe) -> Mapping[str, RegularizerConfig]:
    """The regularizers whose weight is not 0, by label."""
    regularizers = recipe.tokenizer.regularizers
    return {label: r.config for label, r in regularizers.items() if r.config.weight}


def reconstructs(recipe: Recipe) -> bool:
    """Whether any reconstruction term has a weight above 0."""
    terms = recipe.tokenizer.reconstruction
    return any((terms.l1, terms.perceptual.weight, terms.lpips.weight))
