"""``pae export generator``: write a run's generator for LightningDiT or Diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import (
    ForceOption,
    GeneratorRunArgument,
    OutputArgument,
    PluginOption,
    check_output,
    finished_context,
)
from pae_framework.errors import UsageError
from pae_framework.system.printing import print_line


class GeneratorFormat(StrEnum):
    """How a generator is written."""

    SAFETENSORS = "safetensors"
    PT = "pt"
    DIFFUSERS = "diffusers"


def export_generator(
    run: GeneratorRunArgument,
    file: OutputArgument,
    file_format: Annotated[
        GeneratorFormat | None,
        typer.Option(
            "--format", help="default: from the file name; with diffusers, FILE is a folder"
        ),
    ] = None,
    plugin: PluginOption = None,
    force: ForceOption = False,
) -> None:
    """Write a run's generator in the layout of the official LightningDiT weights.

    Writes the weights that the run samples with: the average, if the recipe keeps one. A .pt file
    holds them as `ema`, where official programs look for them, and as `model`, stored once. `pae
    import generator` reads the file back bit for bit.

    `--format diffusers` writes a folder that Diffusers loads as a pipeline of the class
    `pae_generators.diffusers_pipeline.LatentFlowPipeline`: config, weights, scheduler and latent
    statistics. It needs the extra `diffusers`.

    Examples:
        pae export generator runs/dinov2_full 0100000.pt

        pae export generator runs/dinov2_full generator.safetensors

        pae export generator runs/dinov2_full generator --format diffusers
    """
    if file_format is GeneratorFormat.DIFFUSERS:
        _export_pipeline(run, file, force, plugin)
        return
    as_torch = check_output(file, file_format, force)
    context = finished_context(run, "generator", plugin)
    from pae_framework.interop.export import export_generator

    count = export_generator(context, file, as_torch)
    print_line(f"{file}: {count} tensors, {file.stat().st_size / 1e6:.1f} MB")


def _export_pipeline(run: Path, folder: Path, force: bool, plugin: Sequence[Path] | None) -> None:
    _check_folder(folder, force)
    context = finished_context(run, "generator", plugin)
    from pae_framework.interop.export import export_diffusers

    export_diffusers(context, folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print_line(f"{folder}: a Diffusers pipeline, {size / 1e6:.1f} MB")


def _check_folder(folder: Path, force: bool) -> None:
    """Require a new or empty folder, or with --force an earlier pipeline."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / "model_index.json").is_file():
        raise UsageError(f"{folder} exists and is not a Diffusers pipeline; choose another folder")
    if not force:
        raise UsageError(f"{folder} exists; replace it with --force")
