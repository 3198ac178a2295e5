"""``pae check``: is a recipe right, and could it run here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import typer

from pae_framework.cli.arguments import JsonOption, OverridesArgument, RecipeArgument
from pae_framework.cli.output import installed_registry, print_json
from pae_framework.errors import RecipeError


def check(
    recipe: RecipeArgument, overrides: OverridesArgument = None, as_json: JsonOption = False
) -> None:
    """Check a recipe without running it: names, types, shapes that must agree.

    Data that is not on this machine is noted, and is no error. Nothing is written.
    """
    from pae_framework.recipe.load import load_recipe
    from pae_framework.recipe.needs import missing_here

    try:
        loaded = load_recipe(recipe, overrides or (), installed_registry())
    except RecipeError as error:
        if not as_json:
            raise
        print_json(_answer([asdict(problem) for problem in error.problems], []))
        raise typer.Exit(error.exit_code) from None
    missing = missing_here(loaded)
    if as_json:
        print_json(_answer([], [asdict(problem) for problem in missing]))
        return
    if not missing:
        print(f"{loaded.recipe.name}: valid")
        return
    print(f"{loaded.recipe.name}: valid; to run it here you still need:")
    for problem in missing:
        print(f"  {problem}")


def _answer(problems: list[dict[str, Any]], missing: list[dict[str, Any]]) -> dict[str, Any]:
    return {"valid": not problems, "problems": problems, "missing": missing}
