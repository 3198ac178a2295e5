"""``pae show``: print a recipe with every value filled in."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pae_framework.cli.arguments import OverridesArgument, PluginOption, RecipeArgument
from pae_framework.cli.output import installed_registry
from pae_framework.system.printing import print_line


def show(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    plugin: PluginOption = None,
    origin: Annotated[bool, typer.Option("--origin", help="show where each value was set")] = False,
) -> None:
    """Print a recipe as it will run, with parents, overrides and defaults filled in."""
    from pae_framework.recipe.emit import lines
    from pae_framework.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or (), installed_registry(), plugin or ())
    if not origin:
        sys.stdout.write(loaded.resolved_yaml())  # YAML has its own escapes
        return
    resolved = list(lines(loaded.resolved()))
    width = min(60, max(len(line) for line, _ in resolved))
    for line, path in resolved:
        print_line(line if path is None else f"{line:<{width}}  # {loaded.origins[path]}")
