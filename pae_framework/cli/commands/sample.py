"""``pae sample``: sample images from a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import GeneratorRunArgument, PluginOption, finished_context
from pae_framework.cli.output import resumable
from pae_framework.cli.shell_completion import complete_solver
from pae_framework.system.printing import print_line


@resumable()
def sample(
    run: GeneratorRunArgument,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="CLASSES",
            help="classes, by name or by number (#3): cat,#7; default: all in turn",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="number of images; default: one per label, or 64"),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, metavar="N", help="integration steps")] = None,
    solver: Annotated[
        str | None,
        typer.Option(
            metavar="SOLVER",
            autocompletion=complete_solver,
            help="euler, heun, ab2, euler_maruyama, sde_heun, dopri5",
        ),
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(min=1, metavar="SCALE", help="guidance scale; 1: off")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="seed of the noise")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="folder for the PNG files; default: RUN/drawn"),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="TYPE", help="float32, or bf16: faster on a GPU")
    ] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="compile the generator: for many images")
    ] = False,
    npz: Annotated[
        bool, typer.Option("--npz", help="also write images.npz for the ADM evaluator")
    ] = False,
    plugin: PluginOption = None,
) -> None:
    """Sample images from a run: one PNG each, and the first 64 as grid.png.

    Options but --compile default to the recipe's `sample:` section. Image i depends only on its
    label, the seed and i. Run the same command again to resume after an interruption. A different
    command that writes to the same folder deletes the earlier images first.

    Example:
        pae sample runs/quickstart --labels 3,7 --count 16 --steps 10 --guidance 2
    """
    context = finished_context(run, "generator", plugin)
    from pae_framework.sampling.sample_to_folder import (
        choose_labels,
        drawn_classes,
        sample_to_folder,
        sampling_settings,
    )

    given = {
        **{"steps": steps, "solver": solver, "seed": seed},
        **{"precision": precision, "compile": compile},
    }
    settings = sampling_settings(context.recipe, context.registry, guidance, given)
    names = list(context.class_names)
    chosen = choose_labels(labels, count, names)
    folder = out or run / "drawn"
    sample_to_folder(context, chosen, settings, folder, npz)
    print_line(f"classes: {drawn_classes(chosen, names)}")
    images = "1 image" if len(chosen) == 1 else f"{len(chosen)} images"
    print_line(f"{images} in {folder} (grid.png shows the first)")
