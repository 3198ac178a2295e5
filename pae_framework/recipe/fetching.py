"""Bringing what a recipe needs: part after part, each asked by its own config. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pae_framework.config import ComponentConfig
from pae_framework.errors import DataError
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.needs import (
    WEIGHTS,
    Needy,
    members_of,
    missing_tokenizer,
    needy_parts,
)
from pae_framework.recipe.nodes import dotted


@dataclass(frozen=True)
class FetchedPart:
    """One part of a recipe that needs something of this machine.

    ``here``: it was there. ``fetched``: it was brought. ``fetch``: it would be brought (dry run).
    ``missing``: it is not here and cannot be brought; ``text`` says what to do.
    """

    path: str
    state: Literal["here", "fetched", "fetch", "missing"]
    text: str


def fetch_parts(loaded: LoadedRecipe, dry_run: bool) -> Iterator[FetchedPart]:
    """Bring what the parts of a recipe, or of any member of its sweep, need; each thing once."""
    seen: list[tuple[str, object]] = []
    for member in members_of(loaded):
        for path, part in _asked(member.recipe):
            if (path, part) not in seen:
                seen.append((path, part))
                yield _fetch(path, part, dry_run)
        weights = member.recipe.tokenizer.weights
        if weights is not None and (dotted(WEIGHTS), weights) not in seen:
            seen.append((dotted(WEIGHTS), weights))
            missing = missing_tokenizer(member.recipe)
            yield FetchedPart(dotted(WEIGHTS), "missing" if missing else "here", missing or weights)


def _asked(recipe: Recipe) -> Iterator[tuple[str, Needy]]:
    """Parts that have an answer of their own, not the default one."""
    for path, part in needy_parts(recipe):
        if type(part).missing is not ComponentConfig.missing:
            yield dotted(path), part


def _fetch(path: str, part: Needy, dry_run: bool) -> FetchedPart:
    if (missing := part.missing()) is None:
        return FetchedPart(path, "here", "")
    bring = getattr(part, "fetch", None)
    if bring is None or getattr(type(part), "fetch", None) is ComponentConfig.fetch:
        return FetchedPart(path, "missing", missing)
    if dry_run:
        return FetchedPart(path, "fetch", missing)
    try:
        brought = bring()
    except (DataError, OSError) as error:
        return FetchedPart(path, "missing", str(error))
    missing = part.missing()
    return FetchedPart(path, "missing" if missing else "fetched", missing or brought or "")
