"""``pae list-recipes``: list the shipped recipes."""

from __future__ import annotations

from pae_framework.cli.arguments import JsonOption
from pae_framework.cli.output import print_answer, print_table


def list_recipes(as_json: JsonOption = False) -> None:
    """List the shipped recipes. Every command that takes RECIPE accepts their names."""
    from pae_framework.recipe.library import shipped

    recipes = shipped()
    if as_json:
        plain = [{"name": n, "path": str(path), "description": d} for n, path, d in recipes]
        print_answer("list-recipes", {"recipes": plain})
    else:
        print_table(("recipe", "description"), [(name, text) for name, _, text in recipes])
