"""What the shell is offered on TAB: recipes, their keys, and the values a key may have."""

from __future__ import annotations

from pathlib import Path

import typer


def complete_recipe(incomplete: str) -> list[str]:
    """Shipped recipes by name, and recipe files by path."""
    from pae_framework.recipe import library

    names = [name for name, _, _ in library.shipped() if name.startswith(incomplete)]
    files = [str(path) for path in sorted(Path().glob(f"{incomplete}*.yaml"))]
    folders = [f"{path}/" for path in sorted(Path().glob(f"{incomplete}*")) if path.is_dir()]
    return [*names, *files, *folders] if not incomplete.startswith("/") else []


def complete_override(context: typer.Context, incomplete: str) -> list[str]:
    """Keys of the recipe that stands before, and after ``=`` the values they may have.

    Bash cuts words at ``=``: then the key stands among the words before, and only values count.
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
