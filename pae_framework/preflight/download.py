"""Downloads the data and weights that recipes need. No torch."""

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
from pae_framework.recipe.nodes import KeyPath, dotted


@dataclass(frozen=True)
class FetchResult:
    """The data or weights of one component or section of a recipe.

    ``here``: present. ``fetched``: downloaded now. ``fetch``: would be downloaded (dry run).
    ``missing``: absent and not downloadable; ``text`` states the remedy.
    """

    path: str
    state: Literal["here", "fetched", "fetch", "missing"]
    text: str


def fetch_requirements(
    recipes: Sequence[LoadedRecipe], dry_run: bool, only: Collection[str] | None = None
) -> Iterator[FetchResult]:
    """Download everything that recipes need, each item once.

    Args:
        recipes: the recipes to run.
        dry_run: only report what would be downloaded.
        only: key paths of the items to download; None: all.
    """
    seen: list[tuple[str, object]] = []
    for loaded in recipes:
        items: list[tuple[KeyPath, HasRequirements | str]] = [
            *components_with_requirements(loaded.recipe),
            *named_files(loaded.recipe),
        ]
        for key_path, item in items:
            path = dotted(key_path)
            if (path, item) in seen or (only is not None and path not in only):
                continue
            seen.append((path, item))
            if isinstance(item, str):
                missing = missing_file(item)
                yield FetchResult(path, "missing" if missing else "here", missing or item)
            elif type(item).missing is not ComponentConfig.missing:
                yield _fetch(path, item, dry_run)


def fetch_at_first_use(
    recipes: Sequence[LoadedRecipe], missing: Sequence[Problem], say: Callable[[str], None]
) -> list[Problem]:
    """Download what is missing, if the recipes can then run; return what is still missing.

    Downloads nothing offline, or if something else is missing that cannot be downloaded.

    Args:
        recipes: the recipes to run.
        missing: the result of :func:`~pae_framework.preflight.requirements.missing_requirements`.
        say: called with a message before the download starts.
    """
    needed = {problem.path for problem in missing}
    results = fetch_requirements(recipes, dry_run=True, only=needed)
    wanted = {result.path for result in results if result.state == "fetch"}
    if offline() or not missing or any(problem.path not in wanted for problem in missing):
        return list(missing)
    say(f"fetching weights for {', '.join(sorted(wanted))}")
    fetched = fetch_requirements(recipes, dry_run=False, only=needed)
    failed = {result.path: result.text for result in fetched if result.state == "missing"}
    return [replace(p, message=failed[p.path]) for p in missing if p.path in failed]


def _fetch(path: str, section: HasRequirements, dry_run: bool) -> FetchResult:
    if (missing := section.missing()) is None:
        return FetchResult(path, "here", "")
    files = section.files().values() if isinstance(section, Settings) else ()
    fetch = getattr(section, "fetch", None)
    inherited = getattr(type(section), "fetch", None) is ComponentConfig.fetch
    if fetch is None or inherited or any(not file.exists() for file in files):
        return FetchResult(path, "missing", missing)
    if dry_run:
        return FetchResult(path, "fetch", missing)
    try:
        fetched = fetch()
    except (DataError, OSError) as error:
        return FetchResult(path, "missing", str(error))
    missing = section.missing()
    return FetchResult(path, "missing" if missing else "fetched", missing or fetched or "")
