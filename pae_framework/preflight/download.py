"""Download of what recipes need: each component's config fetches its own. No torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pae_framework.config import ComponentConfig, Settings
from pae_framework.errors import DataError, Problem
from pae_framework.hub import offline
from pae_framework.preflight.requirements import (
    HasRequirements,
    components_with_requirements,
    missing_file,
    named_files,
)
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import dotted


@dataclass(frozen=True)
class FetchedPart:
    """A component or section of a recipe that needs data or weights.

    ``here``: present. ``fetched``: downloaded now. ``fetch``: would be downloaded (dry run).
    ``missing``: absent, and cannot be downloaded; ``text`` says what to do.
    """

    path: str
    state: Literal["here", "fetched", "fetch", "missing"]
    text: str


def fetch_parts(
    recipes: Sequence[LoadedRecipe], dry_run: bool, only: Collection[str] | None = None
) -> Iterator[FetchedPart]:
    """Download what recipes need; each item once.

    Args:
        recipes: the recipes that are to run.
        dry_run: only report what would be downloaded.
        only: key paths to download for; None: all.
    """
    seen: list[tuple[str, object]] = []
    for loaded in recipes:
        for path, part in _asked(loaded.recipe):
            if (path, part) not in seen and (only is None or path in only):
                seen.append((path, part))
                yield _fetch(path, part, dry_run)
        for path, file in ((dotted(path), file) for path, file in named_files(loaded.recipe)):
            if (path, file) not in seen and (only is None or path in only):
                seen.append((path, file))
                missing = missing_file(file)
                yield FetchedPart(path, "missing" if missing else "here", missing or file)


def fetch_at_first_use(
    recipes: Sequence[LoadedRecipe], missing: Sequence[Problem], say: Callable[[str], None]
) -> list[Problem]:
    """Download what is missing, if the recipes can run afterwards; return what is still missing.

    Nothing is downloaded offline, nor for a run that cannot start anyway.

    Args:
        recipes: the recipes that are to run.
        missing: found by :func:`~pae_framework.preflight.requirements.missing_requirements`.
        say: called with a message before the download begins.
    """
    needed = {problem.path for problem in missing}
    parts = fetch_parts(recipes, dry_run=True, only=needed)
    wanted = {part.path for part in parts if part.state == "fetch"}
    if offline() or not missing or any(problem.path not in wanted for problem in missing):
        return list(missing)
    say(f"fetching weights for {', '.join(sorted(wanted))}")
    fetched = fetch_parts(recipes, dry_run=False, only=needed)
    failed = {part.path: part.text for part in fetched if part.state == "missing"}
    return [replace(p, message=failed[p.path]) for p in missing if p.path in failed]


def _asked(recipe: Recipe) -> Iterator[tuple[str, HasRequirements]]:
    """Components and sections that define ``missing`` themselves."""
    for path, part in components_with_requirements(recipe):
        if type(part).missing is not ComponentConfig.missing:
            yield dotted(path), part


def _fetch(path: str, part: HasRequirements, dry_run: bool) -> FetchedPart:
    if (missing := part.missing()) is None:
        return FetchedPart(path, "here", "")
    fetch = getattr(part, "fetch", None)
    named = part.files().values() if isinstance(part, Settings) else ()
    if any(not path.is_file() for path in named):  # the user's own files
        return FetchedPart(path, "missing", missing)
    if fetch is None or getattr(type(part), "fetch", None) is ComponentConfig.fetch:
        return FetchedPart(path, "missing", missing)
    if dry_run:
        return FetchedPart(path, "fetch", missing)
    try:
        fetched = fetch()
    except (DataError, OSError) as error:
        return FetchedPart(path, "missing", str(error))
    missing = part.missing()
    return FetchedPart(path, "missing" if missing else "fetched", missing or fetched or "")
