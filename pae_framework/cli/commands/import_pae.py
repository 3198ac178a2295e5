"""``pae import pae``: a released PAE tokenizer as a run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import OverridesArgument


def import_pae(
    file: Annotated[Path, typer.Argument(help="the tokenizer's weights: .pt or .safetensors")],
    recipe: Annotated[
        str,
        typer.Option(
            metavar="RECIPE", help="what it was made for: a recipe file or a shipped recipe's name"
        ),
    ],
    overrides: OverridesArgument = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="the run's directory; default: runs/<recipe name>-imported")
    ] = None,
) -> None:
    """Make a run of a released PAE tokenizer, as if its tokenizer had been trained here.

    The file is read without unpickling anything but tensors and plain values, and checked whole
    before anything is written: weights that are missing, unexpected or of another shape are listed.
    It may bring the encoder's weights or not; without, the recipe's encoder loads its own. The run
    keeps a copy. No images are needed.

    Examples:
        pae import pae PAE_DINOv2L_d32/checkpoints/ep-last.pt --recipe dinov2_full

        pae reconstruct runs/dinov2_full-imported photo.jpg
    """
    from rich.console import Console

    from pae_framework.launch.import_run import import_tokenizer
    from pae_framework.plugins import load_registry

    console = Console(highlight=False)
    command = shlex.join(["pae", *sys.argv[1:]])
    path = import_tokenizer(
        file, recipe, overrides or (), run_dir, load_registry(), command, console
    )
    console.print(f"imported into {path}; see for yourself, or go on with what follows:")
    console.print(f"  pae reconstruct {path} IMAGE...", soft_wrap=True)
    console.print(f"  pae run {path / 'resolved.yaml'} --run-dir {path}", soft_wrap=True)
