"""``pae export generator``: write a run's generator for LightningDiT or Diffusers."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.weights_file import ForceOption, Format, chosen_format
from pae_framework.errors import UsageError


class GeneratorFormat(StrEnum):
    """How a generator is written."""

    SAFETENSORS = "safetensors"
    PT = "pt"
    DIFFUSERS = "diffusers"


def export_generator(
    run: Annotated[Path, typer.Argument(help="directory of a run with a finished generator")],
    file: Annotated[Path, typer.Argument(help="file to write (.safetensors or .pt), or a folder")],
    file_format: Annotated[
        GeneratorFormat | None,
        typer.Option("--format", help="default: from the file name; diffusers writes a folder"),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Write a run's generator in the layout of the official LightningDiT weights.

    The weights are those the run samples with: the average, if the recipe keeps one. A .pt file
    holds them under `ema`, where official programs look for them, and under `model`, stored once.
    `pae import generator` reads it back bit for bit.

    `--format diffusers` writes a folder that Hugging Face's Diffusers loads as a pipeline
    (`pae_generators.diffusers_pipeline.LatentFlowPipeline`): config and weights, scheduler, and the
    statistics of the latents. It needs the extra `diffusers`.

    Examples:
        pae export generator runs/dinov2_full 0100000.pt

        pae export generator runs/dinov2_full generator.safetensors

        pae export generator runs/dinov2_full generator --format diffusers
    """
    from rich.console import Console

    from pae_framework.plugins import load_registry
    from pae_framework.runs.opened import open_run

    as_folder, chosen = file_format is GeneratorFormat.DIFFUSERS, None
    if as_folder:
        _check_folder(file, force)
    else:
        given = None if file_format is None else Format(file_format.value)
        chosen = chosen_format(file, given, force)
    opened = open_run(run, load_registry())
    from pae_framework.execution.context import StageContext

    context = StageContext.of_finished_run(opened, "generator", Console(stderr=True))
    if as_folder:
        from pae_framework.interop.export import export_diffusers

        export_diffusers(context, file)
        size = sum(part.stat().st_size for part in file.rglob("*") if part.is_file())
        typer.echo(f"{file}: a Diffusers pipeline, {size / 1e6:.1f} MB")
        return
    from pae_framework.interop.export import export_generator

    count = export_generator(context, file, chosen is Format.PT)
    typer.echo(f"{file}: {count} tensors, {file.stat().st_size / 1e6:.1f} MB")


def _check_folder(folder: Path, force: bool) -> None:
    """Require a free or empty folder, or with --force an earlier pipeline.

    Raises:
        UsageError: the folder holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / "model_index.json").is_file():
        raise UsageError(f"{folder} exists and is not a Diffusers pipeline; choose another folder")
    if not force:
        raise UsageError(f"{folder} exists; replace it with --force")
