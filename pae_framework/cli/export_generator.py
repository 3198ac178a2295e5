"""``pae export generator``: a run's generator in the layout of the official ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.weights_file import ForceOption, Format, FormatOption, chosen_format


def export_generator(
    run: Annotated[Path, typer.Argument(help="directory of a run whose generator is done")],
    file: Annotated[Path, typer.Argument(help="file to write: .safetensors or .pt")],
    file_format: FormatOption = None,
    force: ForceOption = False,
) -> None:
    """Write a run's generator as official LightningDiT weights are: same names, same layout.

    The weights are those the run samples with: the average, where the recipe keeps one. A .pt file
    has them under `ema`, where official programs look for them, and under `model`; they are stored
    once. `pae import generator` reads it back, bit for bit.

    Examples:
        pae export generator runs/dinov2_full 0100000.pt

        pae export generator runs/dinov2_full generator.safetensors
    """
    from rich.console import Console

    from pae_framework.launch.opened import stage_context
    from pae_framework.plugins import load_registry
    from pae_framework.runs.opened import open_run

    chosen = chosen_format(file, file_format, force)
    opened = open_run(run, load_registry())
    context = stage_context(opened, "generator", Console(stderr=True))
    from pae_framework.stages.exporting import export_generator

    count = export_generator(context, file, chosen is Format.PT)
    typer.echo(f"{file}: {count} tensors, {file.stat().st_size / 1e6:.1f} MB")
