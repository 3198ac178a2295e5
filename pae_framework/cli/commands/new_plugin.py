"""``pae new-plugin``: write the package of a new plugin, or update its scaffolding."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.shell_completion import complete_kind
from pae_framework.errors import UsageError
from pae_framework.kinds import KINDS
from pae_framework.system.printing import print_line


def new_plugin(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="name of the package, e.g. my-encoder")
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            autocompletion=complete_kind,
            help=f"a component it provides; may be repeated; one of {', '.join(KINDS)}",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="folder to write; default: NAME")
    ] = None,
    update: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="instead bring the scaffolding of this plugin (CI, tests of the contracts) to the "
            "installed version, and show what differs; your code stays as it is",
        ),
    ] = None,
) -> None:
    """Write the package of a new plugin: components, tests, a recipe that uses them, CI.

    It works before you change a line: install it, run its tests and its recipe.

    Examples:
        pae new-plugin my-encoder --kind encoder

        pae new-plugin my-parts --kind encoder --kind regularizer

        pae new-plugin --update my-encoder
    """
    from pae_framework.scaffold.names import checked_names
    from pae_framework.scaffold.write import write_plugin

    if update is not None:
        if name is not None or kind or out is not None:
            raise UsageError("--update takes only the folder of the plugin")
        _update(update)
        return
    if name is None:
        raise UsageError("name the plugin, for example: pae new-plugin my-encoder --kind encoder")
    names = checked_names(name, tuple(kind or ()))
    folder = Path(names.distribution) if out is None else out
    for path in write_plugin(names, folder):
        print_line(str(folder / path))
    print_line("\nnext:")
    for line in (
        f"cd {shlex.quote(str(folder))}",
        'pip install -e ".[test]"',
        "pytest",
        "pae list-plugins",
        f"pae run {names.package}.yaml --smoke",
    ):
        print_line(f"  {line}")


def _update(folder: Path) -> None:
    from pae_framework.scaffold.write import update_plugin

    updates = update_plugin(folder)
    for update in updates:
        note = " (you changed it; this is what differs)" if update.state == "kept" else ""
        print_line(f"{update.state} {folder / update.path}{note}")
        for line in update.diff.splitlines():
            print_line(line)
    if not updates:
        print_line(f"{folder}: up to date")
