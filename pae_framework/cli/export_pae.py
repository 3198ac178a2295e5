"""``pae export pae``: a run's tokenizer in the layout of the released ones."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pae_framework.errors import UsageError

TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")


class Format(StrEnum):
    """How weights are written."""

    SAFETENSORS = "safetensors"
    PT = "pt"


def export_pae(
    run: Annotated[Path, typer.Argument(help="directory of a run whose tokenizer is done")],
    file: Annotated[Path, typer.Argument(help="file to write: .safetensors or .pt")],
    file_format: Annotated[
        Format | None, typer.Option("--format", help="default: what the file's name says")
    ] = None,
    no_encoder: Annotated[
        bool, typer.Option("--no-encoder", help="leave out the frozen encoder's weights")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="replace a file that exists")] = False,
) -> None:
    """Write a run's tokenizer as the released PAE tokenizers are: same names, same layout.

    `pae import pae` reads it back, bit for bit. A .pt file keeps the weights under `model`.

    Examples:
        pae export pae runs/dinov2_full tokenizer.pt

        pae export pae runs/dinov2_full tokenizer.safetensors --no-encoder
    """
    from rich.console import Console

    from pae_framework.launch.opened import stage_context
    from pae_framework.plugins import load_registry
    from pae_framework.runs.opened import open_run

    chosen = _format(file, file_format)
    if file.exists() and not force:
        raise UsageError(f"{file} exists; --force replaces it")
    opened = open_run(run, load_registry())
    context = stage_context(opened, "tokenizer", Console(stderr=True))
    from pae_framework.stages.exporting import export_tokenizer

    count = export_tokenizer(context, file, chosen is Format.PT, not no_encoder)
    typer.echo(f"{file}: {count} tensors, {file.stat().st_size / 1e6:.1f} MB")


def _format(file: Path, given: Format | None) -> Format:
    """The format given, which must be what readers take the file's name for."""
    if file.suffix not in (".safetensors", *TORCH_SUFFIXES):
        raise UsageError(f"{file}: a name that ends in .safetensors or .pt says how to read it")
    named = Format.PT if file.suffix in TORCH_SUFFIXES else Format.SAFETENSORS
    if given not in (None, named):
        raise UsageError(f"--format {given.value} does not go with the name {file.name}")
    return named
