"""Shell completion of recipes, their keys, and the values of a key."""

from __future__ import annotations

from pathlib import Path

import typer


def complete_recipe(incomplete: str) -> list[str]:
    """Shipped recipes by name, and recipe files by path."""
    from pae_framework.recipe import library

    names = [name for name, _, _ in library.shipped() if name.startswith(incomplete)]
    before, slash, beginning = incomplete.rpartition("/")
    here = sorted(Path(before + slash).glob("*"))
    fitting = [path for path in here if path.name.startswith(beginning)]
    files = [path.name for path in fitting if path.suffix == ".yaml" and path.is_file()]
    folders = [f"{path.name}/" for path in fitting if path.is_dir()]
    return [*names, *(f"{before}{slash}{name}" for name in (*files, *folders))]


def complete_override(context: typer.Context, incomplete: str) -> list[str]:
    """Keys of the recipe given before, and after ``=`` the values of that key.

    Bash splits words at ``=``: then the key is among the earlier words, and only values are given.
    """
    from pae_framework.errors import PaeError
    from pae_framework.plugins import load_registry
    from pae_framework.recipe.completion import completions
    from pae_framework.recipe.load import load_recipe

    words = [*(context.params.get("overrides") or []), incomplete]
    cut = "=" in words[-2:]
    if cut:
        place = len(words) - 1 - words[::-1].index("=")
        words = [*words[: place - 1], f"{words[place - 1]}={''.join(words[place + 1 :])}"]
    try:
        recipe = load_recipe(context.params["recipe"], (), load_registry())
        found = completions(recipe, words[-1])
    except (PaeError, KeyError):
        return []
    return [text.partition("=")[2] for text in found] if cut else found
