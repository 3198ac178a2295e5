"""``pae export ema``: reconstruct an average of any length from the snapshots of a training."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import (
    ForceOption,
    PluginOption,
    check_output,
    finished_context,
)
from pae_framework.cli.shell_completion import complete_run
from pae_framework.errors import UsageError
from pae_framework.system.printing import print_line


class Averaged(StrEnum):
    """The stages whose weights a recipe can load."""

    GENERATOR = "generator"
    TOKENIZER = "tokenizer"


def export_ema(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="directory of a run whose recipe sets ema_snapshots",
            autocompletion=complete_run,
        ),
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="file to write: .safetensors")],
    length: Annotated[
        float,
        typer.Option(
            metavar="LENGTH",
            min=0.005,
            max=0.28,
            help="standard deviation of the averaged steps, divided by the number of steps",
        ),
    ],
    stage: Annotated[
        Averaged,
        typer.Option(metavar="STAGE", help="whose weights are averaged: generator or tokenizer"),
    ] = Averaged.GENERATOR,
    plugin: PluginOption = None,
    force: ForceOption = False,
) -> None:
    """Reconstruct an average of the weights of any length after the training.

    The training must have kept snapshots (`generator.train.ema_snapshots`). The average has the
    power-function profile of EDM2 (arXiv 2312.02696), and is the least-squares combination of the
    snapshots. Prints how far its profile is from the exact one; beyond 5 % it is an error.

    To sample and evaluate with the file, set `generator.weights=FILE`, and `--run-dir` so that this
    run keeps the generator with the snapshots; `--stages RUN/stages` shares the other stages.

    Examples:
        pae export ema runs/a ema.safetensors --length 0.15
    """
    if check_output(file, None, force):
        raise UsageError(f"{file}: the file name must end in .safetensors")
    context = finished_context(run, stage.value, plugin)
    from pae_framework.interop.posthoc_ema import export_ema

    found = export_ema(context, stage.value, length, file)
    print_line(
        f"{file}: length {length:g}, from {len(found.factors)} snapshots "
        f"(error of the profile {found.error:.2%})"
    )
