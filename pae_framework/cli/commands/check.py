"""``pae check``: validate a recipe, and list what this machine lacks to run it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import typer

from pae_framework.cli.arguments import JsonOption, OverridesArgument, RecipeArgument
from pae_framework.cli.output import installed_registry, print_json
from pae_framework.errors import Problem, RecipeError
from pae_framework.system.printing import print_line


def check(
    recipe: RecipeArgument, overrides: OverridesArgument = None, as_json: JsonOption = False
) -> None:
    """Check a recipe without running it: names, types, and whether shapes agree.

    Also lists everything this machine lacks to run it: data, weights, a GPU, memory, disk space,
    a compiler. That is not an error. Writes nothing.
    """
    from pae_framework.preflight.processes import settings_without_effect
    from pae_framework.preflight.requirements import (
        images_left_out,
        low_memory,
        members_of,
        missing_requirements,
    )
    from pae_framework.preflight.resources import lacking_resources, scarce_resources
    from pae_framework.recipe.load import load_recipe

    try:
        loaded = load_recipe(recipe, overrides or (), installed_registry())
    except RecipeError as error:
        if not as_json:
            raise
        print_json(_answer(problems=error.problems))
        raise typer.Exit(error.exit_code) from None
    members = members_of(loaded)
    missing = [*missing_requirements(members), *lacking_resources(members)]
    tight = [*low_memory(members), *scarce_resources(members)]
    if as_json:
        print_json(_answer(missing=missing, tight=tight))
        return
    needs = "; to run it here you still need:" if missing else ""
    print_line(f"{loaded.recipe.name}: valid{needs}")
    for problem in missing:
        print_line(f"  {problem}")
    for line in images_left_out(members):
        print_line(f"  {line}")
    for problem in settings_without_effect(members):
        print_line(f"  {problem}")
    if tight:
        print_line("this machine may not suffice:")
    for problem in tight:
        print_line(f"  {problem}")


def _answer(
    problems: Sequence[Problem] = (), missing: Sequence[Problem] = (), tight: Sequence[Problem] = ()
) -> dict[str, Any]:
    lists = {"problems": problems, "missing": missing, "tight": tight}
    plain = {name: [asdict(problem) for problem in found] for name, found in lists.items()}
    return {"valid": not problems, **plain}
