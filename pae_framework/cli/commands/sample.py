"""``pae sample``: sample images from a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from pae_framework.flow.flow_settings import SolverName


def sample(
    run: Annotated[Path, typer.Argument(help="directory of a finished run")],
    labels: Annotated[
        str | None, typer.Option(help="classes, by number or name: 3,7; default: all in turn")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(min=1, help="number of images; default: one per label, or 64"),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="integration steps")] = None,
    solver: Annotated[str | None, typer.Option(help=", ".join(get_args(SolverName)))] = None,
    guidance: Annotated[float | None, typer.Option(min=1, help="guidance scale; 1: none")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="seed of the noise")] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for the PNG files; default: RUN/drawn")
    ] = None,
    npz: Annotated[
        bool, typer.Option("--npz", help="also write images.npz, as the ADM evaluator reads it")
    ] = False,
) -> None:
    """Sample images: one PNG each, and the first 64 as grid.png.

    Options default to the recipe's `sample:` section. Image i depends on its label, the seed and i
    alone. The same command resumes after an interruption; a command for other images first removes
    the images of earlier commands from the folder.

    Example:
        pae sample runs/quickstart --labels 3,7 --count 16 --steps 10 --guidance 2
    """
    from rich.console import Console

    from pae_framework.plugins import load_registry
    from pae_framework.runs.opened import open_run

    opened = open_run(run, load_registry())
    from pae_framework.execution.context import StageContext

    context = StageContext.of_finished_run(opened, "generator", Console(stderr=True))
    from pae_framework.sampling.sample_to_folder import (
        choose_labels,
        sample_to_folder,
        sampling_settings,
    )

    given = {"steps": steps, "solver": solver, "seed": seed}
    settings = sampling_settings(opened.loaded.recipe, context.registry, guidance, given)
    names = list(context.class_names)
    chosen = choose_labels(labels, count, names)
    folder = out or run / "drawn"
    sample_to_folder(context, chosen, settings, folder, npz)
    typer.echo(f"{len(chosen)} images in {folder} (grid.png shows the first)")
