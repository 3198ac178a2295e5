"""Arguments that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="a recipe file, or the name of a shipped recipe")
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY.PATH=VALUE", help="a value to set in the recipe; null removes a key"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON and nothing else")]
