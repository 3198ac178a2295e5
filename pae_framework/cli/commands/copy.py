"""``pae copy``: copy a recipe to edit it."""

from __future__ import annotations

import re
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

    The copy is named after its file, and so is the directory of its run. The comment that names the
    schema is left out, because its path is relative; see `pae schema`.
    """
    from pae_framework.recipe.emit import inline
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
    kept = (line for line in lines if not line.startswith(MODELINE.encode()))
    content = b"".join(kept)
    name = name_after(target)
    written = f"name: {inline(name)}"
    content, named = _NAME.subn(written.encode(), content, count=1)
    with replacing(target, len(content)) as temporary:
        temporary.write_bytes(content)
    print_line(f"{target}: copied{f', with `{written}`' if named else ''}")


_NAME = re.compile(rb"^name:[ \t]*[^\s#]+", re.MULTILINE)


def name_after(file: Path) -> str:
    """The stem of a file as the name of a recipe: letters, digits, ``.``, ``_`` and ``-``.

    Raises:
        UsageError: nothing of it can be in a name.
    """
    from pae_framework.recipe.models import MAX_NAME

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("._-")[:MAX_NAME]
    if not name:
        raise UsageError(f"{file}: a name of letters and digits is needed, which names the run")
    return name
