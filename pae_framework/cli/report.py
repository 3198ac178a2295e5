"""``pae report``: write the report of a run, or of a sweep, again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="directory of a finished run or of a sweep")],
) -> None:
    """Write report.html from what the run's stages left behind.

    Of a sweep, its members that are finished so far are set side by side.
    """
    from rich.console import Console

    from pae_framework.plugins import load_registry
    from pae_framework.runs.directory import RunDirectory

    registry, console = load_registry(), Console(stderr=True)
    if "members" in RunDirectory.at(run).info:
        from pae_framework.launch.sweep import SweepLauncher
        from pae_framework.recipe.load import load_recipe

        loaded = load_recipe(run / "resolved.yaml", (), registry)
        SweepLauncher(console).compare(loaded, run)
    else:
        from pae_framework.launch.opened import stage_context
        from pae_framework.runs.opened import open_run
        from pae_framework.stages import report as stage

        stage.run(stage_context(open_run(run, registry), "report", console))
    typer.echo(str(run / "report.html"))
