"""``pae copy``: a recipe to make one's own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import RecipeArgument
from pae_framework.errors import UsageError


def copy(
    recipe: RecipeArgument,
    destination: Annotated[
        Path | None,
        typer.Argument(metavar="DEST", help="file or folder; default: the working directory"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a file that exists")] = False,
) -> None:
    """Copy a recipe, to change it and run it as your own. Never overwrites without --force."""
    from pae_framework.recipe.library import find

    source = find(recipe)
    target = destination or Path()
    if target.is_dir():
        target = target / source.name
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent}")
    if target.exists() and target.samefile(source):
        raise UsageError(f"{target} is that recipe itself; say where to copy it")
    if target.exists() and not force:
        raise UsageError(f"{target} exists; --force replaces it")
    shutil.copyfile(source, target)
    print(f"{target}: copied; change its `name`, which names the run's directory")
