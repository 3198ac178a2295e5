"""``pae sample``: draw images from a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from pae_framework.flow.flow_settings import SolverName


def sample(
    run: Annotated[Path, typer.Argument(help="directory of a finished run")],
    labels: Annotated[
        str | None, typer.Option(help="classes, as numbers or names: 3,7; default: all in turn")
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="images; default: one per label given, or 64")
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
    """Draw images: one PNG each, and the first 64 as grid.png.

    What is not given is as the recipe's `sample:` says. Image i depends on the seed and on i alone.
    The same command goes on where it was interrupted; another one into the same folder first
    removes what was drawn there.

    Example:
        pae sample runs/quickstart --labels 3,7 --count 16 --steps 10 --guidance 2
    """
    from rich.console import Console

    from pae_framework.execution.finished_run import stage_context
    from pae_framework.plugins import load_registry
    from pae_framework.runs.opened import open_run

    opened = open_run(run, load_registry())
    context = stage_context(opened, "generator", Console(stderr=True))
    from pae_framework.sampling.sample_to_folder import (
        choose_labels,
        draw_to_folder,
        sampling_settings,
    )

    given = {"steps": steps, "solver": solver, "seed": seed}
    settings = sampling_settings(opened.loaded.recipe, guidance, given)
    names = list(context.class_names)
    chosen = choose_labels(labels, count, names)
    folder = out or run / "drawn"
    draw_to_folder(context, chosen, settings, folder, npz)
    typer.echo(f"{len(chosen)} images in {folder} (grid.png shows the first)")
