"""Shell completion of recipes, overrides and profiles. Imports recipes only when the shell asks."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import typer


def complete_recipe(incomplete: str) -> list[str]:
    """Shipped recipes by name, and recipe files by path."""
    from pae_framework.recipe import library

    names = [name for name, _, _ in library.shipped() if name.startswith(incomplete)]
    folder, slash, prefix = incomplete.rpartition("/")
    entries = [
        path for path in sorted(Path(folder + slash).glob("*")) if path.name.startswith(prefix)
    ]
    files = [path.name for path in entries if path.suffix == ".yaml" and path.is_file()]
    folders = [f"{path.name}/" for path in entries if path.is_dir()]
    return [*names, *(f"{folder}{slash}{name}" for name in (*files, *folders))]


def complete_run(incomplete: str) -> list[str]:
    """Directories of runs and sweeps: those of the folder that is typed, else of ``runs/``."""
    typed = Path(incomplete)
    folder = typed if incomplete.endswith("/") else typed.parent
    found = [folder, Path("runs")] if incomplete in ("", typed.name) else [folder]
    records = [record for place in found for record in sorted(place.glob("*/run.json"))]
    names = [str(record.parent) for record in records]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def complete_stage(incomplete: str) -> list[str]:
    """Names of stages."""
    from pae_framework.recipe.stage_table import STAGES

    return [name for name in STAGES if name.startswith(incomplete)]


def complete_solver(incomplete: str) -> list[str]:
    """Names of solvers."""
    from typing import get_args

    from pae_framework.flow.flow_settings import SolverName

    return [name for name in get_args(SolverName) if name.startswith(incomplete)]


def complete_kind(incomplete: str) -> list[str]:
    """Kinds of components."""
    from pae_framework.kinds import KINDS

    return [kind for kind in KINDS if kind.startswith(incomplete)]


def complete_component(incomplete: str) -> list[str]:
    """References of components, ``KIND:NAME``; names alone, too, as bash cuts at the colon."""
    from pae_framework.plugins import load_registry

    specs = load_registry().specs()
    found = dict.fromkeys([*(spec.reference for spec in specs), *(spec.name for spec in specs)])
    return [word for word in found if word.startswith(incomplete)]


def without_trailing_blank(script: str) -> str:
    """Typer's script for bash; no blank follows a word that is to be continued, as ``runs/``."""
    return script.replace(
        "    return 0\n",
        "    [[ ${COMPREPLY[*]} == *[.=/:] ]] && compopt -o nospace\n    return 0\n",
    )


def complete_parts_of_words() -> None:
    """Let typer write :func:`without_trailing_blank` for bash, if this version of typer can."""
    with suppress(ImportError, AttributeError, KeyError, TypeError):
        from typer import _completion_shared

        scripts = _completion_shared._completion_scripts
        scripts["bash"] = without_trailing_blank(scripts["bash"])


def complete_profile(incomplete: str) -> list[str]:
    """Names of profiles."""
    from pae_framework.errors import ProfileError
    from pae_framework.recipe.profiles import Profiles

    try:
        return [name for name in Profiles().names if name.startswith(incomplete)]
    except ProfileError:
        return []


def complete_override(context: typer.Context, incomplete: str) -> list[str]:
    """Keys of the recipe on the command line, and after ``=`` the values of a key.

    Bash splits words at ``=``: the key is then among the earlier words, and the answers are values
    without it.
    """
    from pae_framework.errors import PaeError
    from pae_framework.plugins import load_registry
    from pae_framework.recipe.completion import completions
    from pae_framework.recipe.load import load_recipe

    words = [*(context.params.get("overrides") or []), incomplete]
    split = "=" in words[-2:]
    if split:
        sign = len(words) - 1 - words[::-1].index("=")
        words = [*words[: sign - 1], f"{words[sign - 1]}={''.join(words[sign + 1 :])}"]
    try:
        recipe = load_recipe(
            context.params["recipe"],
            (),
            load_registry(),
            [Path(file) for file in context.params.get("plugin") or ()],
        )
        answers = completions(recipe, words[-1])
    except (PaeError, KeyError):
        return []
    return [text.partition("=")[2] for text in answers] if split else answers
