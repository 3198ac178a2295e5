"""``pae list-recipes``: the recipes that come with the framework."""

from __future__ import annotations

from pae_framework.cli.arguments import JsonOption
from pae_framework.cli.output import print_json, print_table


def list_recipes(as_json: JsonOption = False) -> None:
    """List the recipes that come with the framework; each runs, checks and copies by its name."""
    from pae_framework.recipe.library import shipped

    found = shipped()
    if as_json:
        print_json(
            [
                {"name": name, "path": str(path), "description": description}
                for name, path, description in found
            ]
        )
        return
    print_table(("recipe", "description"), [(name, text) for name, _, text in found])
