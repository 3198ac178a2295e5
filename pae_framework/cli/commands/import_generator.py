"""``pae import generator``: official generator weights, into a run that has a tokenizer."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import OverridesArgument


def import_generator(
    file: Annotated[Path, typer.Argument(help="the generator's weights: .pt or .safetensors")],
    run: Annotated[Path, typer.Argument(help="directory of a run whose tokenizer is done")],
    overrides: OverridesArgument = None,
    statistics: Annotated[
        Path | None,
        typer.Option(
            help="statistics of the latents it was trained on: latents_stats.pt or .safetensors; "
            "default: those of the run's latents, written if need be"
        ),
    ] = None,
) -> None:
    """Give a run the weights of a generator trained elsewhere, as if it had been trained here.

    Takes LightningDiT's files (of `ema`, `model` or bare weights the first there is) and what our
    runs write. They are read without unpickling anything but tensors and plain values, and checked
    whole before anything is written: a file of another network is described. The run keeps copies;
    what it trained before stays in its `stages` folder. With --statistics no images are needed.

    Examples:
        pae import generator 0100000.pt runs/dinov2_full-imported --statistics latents_stats.pt

        pae import generator 1000000.pt runs/dinov2_full generator.qk_norm=true

        pae sample runs/dinov2_full-imported --labels 207,360 --steps 10 --guidance 2.5
    """
    from rich.console import Console

    from pae_framework.launch.import_run import import_generator
    from pae_framework.plugins import load_registry

    console = Console(highlight=False)
    command = shlex.join(["pae", *sys.argv[1:]])
    import_generator(file, run, statistics, overrides or (), load_registry(), command, console)
    console.print(f"imported into {run}; draw with it, or go on with what follows:")
    console.print(f"  pae sample {run} --count 16", soft_wrap=True)
    console.print(f"  pae run {run / 'resolved.yaml'} --run-dir {run}", soft_wrap=True)
