"""Arguments that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

from pae_framework.cli.shell_completion import complete_override, complete_recipe

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="a recipe file, or the name of a shipped recipe",
        autocompletion=complete_recipe,
    ),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY.PATH=VALUE",
        help="set a value of the recipe; null removes the key",
        autocompletion=complete_override,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON only")]
