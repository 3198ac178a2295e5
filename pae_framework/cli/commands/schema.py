"""``pae schema``: the JSON schema of recipes, for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import ForceOption, PluginOption
from pae_framework.cli.output import installed_registry, note, print_json
from pae_framework.errors import UsageError
from pae_framework.system.files import write_text
from pae_framework.system.standard_streams import results_only


def schema(
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write it here instead of printing it")
    ] = None,
    plugin: PluginOption = None,
    force: ForceOption = False,
) -> None:
    """Print the JSON schema of recipes: every key, and every installed component.

    With it an editor completes keys, shows their descriptions and marks errors while you type.

    Example:
        pae schema --out recipe.schema.json
    """
    from pae_framework.recipe.json_schema import recipe_schema
    from pae_framework.recipe.library import MODELINE

    if out is None:
        results_only()
    found = recipe_schema(installed_registry(plugin or ()))
    if out is None:
        print_json(found)
        return
    if out.exists() and not force:
        raise UsageError(f"{out} exists; replace it with --force")
    write_text(out, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    note(f"{out}: written; in a recipe beside it, write the line `{MODELINE}{out.name}`")
