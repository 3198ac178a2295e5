"""``pae show``: print a recipe with every value filled in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pae_framework.cli.arguments import OverridesArgument, PluginOption, RecipeArgument
from pae_framework.cli.output import installed_registry
from pae_framework.system.printing import print_line

if TYPE_CHECKING:
    from pae_framework.recipe.nodes import KeyPath


def show(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    plugin: PluginOption = None,
    origin: Annotated[bool, typer.Option("--origin", help="show where each value was set")] = False,
) -> None:
    """Print a recipe as it will run, with parents, overrides and defaults filled in.

    Of a fragment, which other recipes extend, print what it sets.
    """
    from pae_framework.recipe.load import load_recipe, read_recipe

    written = read_recipe(recipe, overrides or ())
    if written.is_fragment and not written.problems:
        values = written.root.plain()
        _print(values, written.root.position if origin else None)
    else:
        loaded = load_recipe(recipe, overrides or (), installed_registry(), plugin or ())
        _print(loaded.resolved(), loaded.origins.__getitem__ if origin else None)


def _print(values: dict[str, Any], origin: Callable[[KeyPath], str] | None) -> None:
    """Print values as YAML, each with its origin if there is a function that says it."""
    from pae_framework.recipe.emit import lines, to_yaml

    if origin is None:
        sys.stdout.write(to_yaml(values))  # YAML has its own escapes
        return
    listed = list(lines(values))
    width = min(60, max(len(line) for line, _ in listed))
    for line, path in listed:
        print_line(line if path is None else f"{line:<{width}}  # {origin(path)}")
