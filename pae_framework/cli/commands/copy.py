"""``pae copy``: copy a recipe to edit it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import ForceOption, RecipeArgument
from pae_framework.errors import UsageError
from pae_framework.system.files import replacing
from pae_framework.system.printing import print_line


def copy(
    recipe: RecipeArgument,
    destination: Annotated[
        Path | None,
        typer.Argument(metavar="DEST", help="file or folder to write; default: the current folder"),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Copy a recipe to edit it and run it as your own.

    The comment that names the schema is left out, because its path is relative; see `pae schema`.
    """
    from pae_framework.recipe.library import MODELINE, find

    source = find(recipe)
    target = destination or Path()
    if target.is_dir():
        target = target / source.name
    if not target.parent.is_dir():
        raise UsageError(f"there is no folder {target.parent}")
    if target.exists() and target.samefile(source):
        raise UsageError(f"{target} is the recipe itself; give another DEST")
    if target.exists() and not force:
        raise UsageError(f"{target} exists; replace it with --force")
    lines = source.read_bytes().splitlines(keepends=True)
    content = b"".join(line for line in lines if not line.startswith(MODELINE.encode()))
    with replacing(target, len(content)) as temporary:
        temporary.write_bytes(content)
    print_line(f"{target}: copied; change its `name`, which names the run's directory")
