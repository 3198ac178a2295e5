"""``pae list-recipes``: list the shipped recipes."""

from __future__ import annotations

from pae_framework.cli.arguments import JsonOption
from pae_framework.cli.output import print_json, print_table


def list_recipes(as_json: JsonOption = False) -> None:
    """List the shipped recipes; use their names with `pae run`, `pae check`, `pae copy`..."""
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
