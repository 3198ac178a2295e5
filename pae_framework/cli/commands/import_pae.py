"""``pae import pae``: make a run from a released PAE tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import OverridesArgument, PluginOption, WeightsArgument
from pae_framework.cli.output import (
    command_line,
    installed_registry,
    progress_console,
    tell_loading,
)
from pae_framework.system.printing import print_line


def import_pae(
    file: WeightsArgument,
    recipe: Annotated[
        str,
        typer.Option(
            metavar="RECIPE", help="recipe of its training: a file, or the name of a shipped recipe"
        ),
    ],
    overrides: OverridesArgument = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="directory of the run; default: runs/<recipe name>-imported"
        ),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Make a run from a released PAE tokenizer, as if this run had trained the tokenizer.

    Only tensors and plain values are unpickled. The whole file is checked before anything is
    written. The error lists weights that are missing, unexpected or of another shape. The recipe's
    encoder loads its own weights if the file does not contain them. The run keeps a copy of the
    file. No images are needed; if the test images are here, the mean, deviation and root mean
    square of a few latents are printed. FILE may be the folder of a released tokenizer, or of all.

    Examples:
        pae import pae checkpoints/ep-last.pt --recipe dinov2_full

        pae import pae AE-models/dinov2-large.pt --recipe dinov2_full

        pae reconstruct runs/dinov2_full-imported photo.jpg
    """
    from pae_framework.launch.import_run import describe_imported, import_tokenizer

    tell_loading()
    console, registry = progress_console(), installed_registry(plugin or ())
    path = import_tokenizer(
        file, recipe, overrides or (), run_dir, registry, command_line(), console, plugin or ()
    )
    print_line(describe_imported(path, registry, console))
    print_line(f"imported into {path}; reconstruct images, or run the remaining stages:")
    print_line(f"  pae reconstruct {path} IMAGE...")
    print_line(f"  pae run {path / 'resolved.yaml'} --run-dir {path}")
