"""``pae new-recipe``: write a recipe for a folder of images."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.output import installed_registry
from pae_framework.errors import UsageError
from pae_framework.system.printing import print_line


def new_recipe(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="folder of images, or of one folder per class, or of train and val with either",
        ),
    ],
    size: Annotated[
        int | None,
        typer.Option(
            min=16,
            max=1024,
            metavar="PX",
            help="side of the square crops, a multiple of 16; default: 64, or less for small "
            "images",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="file to write; default: <name of the folder>.yaml"),
    ] = None,
) -> None:
    """Write a recipe for your own images, after a look at them.

    Prints what it finds: classes, numbers, sizes, transparency, and images that cannot be read,
    which the recipe excludes. If there is no folder val or test, the recipe holds out a share of
    the images. It never replaces a file.

    Examples:
        pae new-recipe photos

        pae new-recipe ~/data/birds --size 128 --out birds128.yaml
    """
    from pae_framework.scaffold.folder_recipe import find_images, recipe_name, recipe_text
    from pae_framework.system.files import write_text

    file = out or Path(f"{recipe_name(folder)}.yaml")
    if os.path.lexists(file):
        raise UsageError(f"{file} exists; choose another --out")
    found = find_images(folder, installed_registry())
    name = recipe_name(file.with_suffix(""))
    quoted = shlex.quote(str(file))
    text = recipe_text(found, name, found.default_side if size is None else size, quoted)
    for line in found.lines():
        print_line(line)
    write_text(file, text)
    print_line(f"\n{file}: written; next:")
    print_line(f"  pae check {quoted} --pictures {shlex.quote(_pictures(folder, name))}")
    print_line(f"  pae run {quoted}")


def _pictures(folder: Path, name: str) -> str:
    """A file for the contact sheet that does not become one of the images."""
    images, here = folder.expanduser().resolve(), Path.cwd()
    place = images.parent if here.is_relative_to(images) else here
    return os.path.relpath(place / f"{name}.png")
