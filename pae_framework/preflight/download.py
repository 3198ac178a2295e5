"""Bringing what a recipe needs: part after part, each asked by its own config. No torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pae_framework.config import ComponentConfig, Settings
from pae_framework.errors import DataError, Problem
from pae_framework.hub import offline
from pae_framework.preflight.requirements import (
    Needy,
    members_of,
    missing_file,
    named_files,
    needy_parts,
)
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.models import Recipe
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


def fetch_parts(
    members: LoadedRecipe | Sequence[LoadedRecipe],
    dry_run: bool,
    only: Collection[str] | None = None,
) -> Iterator[FetchedPart]:
    """Bring what the parts of a recipe, or of any member of its sweep, need; each thing once.

    Args:
        members: a recipe with all members it may have, or the recipes that are to run.
        dry_run: only say what would be brought.
        only: key paths of the parts that are brought; None: all.
    """
    seen: list[tuple[str, object]] = []
    for member in members_of(members) if isinstance(members, LoadedRecipe) else members:
        for path, part in _asked(member.recipe):
            if (path, part) not in seen and (only is None or path in only):
                seen.append((path, part))
                yield _fetch(path, part, dry_run)
        for path, file in ((dotted(path), file) for path, file in named_files(member.recipe)):
            if (path, file) not in seen and (only is None or path in only):
                seen.append((path, file))
                missing = missing_file(file)
                yield FetchedPart(path, "missing" if missing else "here", missing or file)


def fetch_at_first_use(
    recipes: Sequence[LoadedRecipe], missing: Sequence[Problem], say: Callable[[str], None]
) -> list[Problem]:
    """Bring what is missing if that is all that keeps the recipes from running; what still is.

    Nothing is downloaded on a machine that is offline, nor for a run that cannot start anyway.

    Args:
        recipes: what is to run.
        missing: what :func:`~pae_framework.preflight.requirements.missing_here` found.
        say: told of each part before it is brought.
    """
    needed = {problem.path for problem in missing}
    parts = fetch_parts(recipes, dry_run=True, only=needed)
    wanted = {part.path for part in parts if part.state == "fetch"}
    if offline() or not missing or any(problem.path not in wanted for problem in missing):
        return list(missing)
    say(f"fetching weights for {', '.join(sorted(wanted))}")
    brought = fetch_parts(recipes, dry_run=False, only=needed)
    failed = {part.path: part.text for part in brought if part.state == "missing"}
    return [replace(p, message=failed[p.path]) for p in missing if p.path in failed]


def _asked(recipe: Recipe) -> Iterator[tuple[str, Needy]]:
    """Parts that have an answer of their own, not the default one."""
    for path, part in needy_parts(recipe):
        if type(part).missing is not ComponentConfig.missing:
            yield dotted(path), part


def _fetch(path: str, part: Needy, dry_run: bool) -> FetchedPart:
    if (missing := part.missing()) is None:
        return FetchedPart(path, "here", "")
    bring = getattr(part, "fetch", None)
    named = part.files().values() if isinstance(part, Settings) else ()
    if any(not path.is_file() for path in named):  # the user's own, which nothing can bring
        return FetchedPart(path, "missing", missing)
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
