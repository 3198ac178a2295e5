"""``pae fetch``: download the weights a recipe needs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pae_framework.cli.arguments import JsonOption, OverridesArgument, PluginOption, RecipeArgument
from pae_framework.cli.output import installed_registry, print_answer
from pae_framework.system.printing import print_line


def fetch(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    plugin: PluginOption = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="only list which weights are here and which are missing"),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Download the weights a recipe needs into the caches that runs read.

    Run it on a machine with network access, such as a login node, if the machines that train have
    none. Also lists data that you must provide yourself, and where. The exit code is 1 if anything
    is still missing.

    Example:
        pae fetch siglip2_full
    """
    from pae_framework.preflight.download import fetch_requirements
    from pae_framework.preflight.requirements import members_of
    from pae_framework.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or (), installed_registry(), plugin or ())
    results = []
    for result in fetch_requirements(members_of(loaded), dry_run):
        results.append(result)
        if not as_json:
            text = f": {result.text}" if result.text else ""
            print_line(f"{result.state:<8} {result.path}{text}")
    complete = all(result.state in ("here", "fetched") for result in results)
    if as_json:
        parts = [asdict(result) for result in results]
        print_answer("fetch", {"complete": complete, "parts": parts})
    elif complete:
        print_line(f"{loaded.recipe.name}: nothing is missing")
    if not complete and not dry_run:
        raise typer.Exit(1)
