"""``pae import generator``: load generator weights trained elsewhere into a run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import OverridesArgument


def import_generator(
    file: Annotated[Path, typer.Argument(help="the generator's weights: .pt or .safetensors")],
    run: Annotated[Path, typer.Argument(help="directory of a run with a finished tokenizer")],
    overrides: OverridesArgument = None,
    statistics: Annotated[
        Path | None,
        typer.Option(
            help="statistics of the latents it was trained on: latents_stats.pt or .safetensors; "
            "default: those of the run's latents, computed if needed"
        ),
    ] = None,
) -> None:
    """Load a generator trained elsewhere into a run, as if it had been trained there.

    Reads LightningDiT files (`ema`, else `model`, else bare weights) and those our runs write. Only
    tensors and plain values are unpickled. The whole file is checked before anything is written; if
    it is for another network, the error lists the differences. The run keeps copies; what it
    trained before stays in its `stages` folder. With --statistics no images are needed.

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
    console.print(f"imported into {run}; sample from it, or run the remaining stages:")
    console.print(f"  pae sample {run} --count 16", soft_wrap=True)
    console.print(f"  pae run {run / 'resolved.yaml'} --run-dir {run}", soft_wrap=True)
