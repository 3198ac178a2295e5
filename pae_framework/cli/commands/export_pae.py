"""``pae export pae``: write a run's tokenizer in the layout of released PAE tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.weights_file import ForceOption, Format, FormatOption, chosen_format


def export_pae(
    run: Annotated[Path, typer.Argument(help="directory of a run with a finished tokenizer")],
    file: Annotated[Path, typer.Argument(help="file to write: .safetensors or .pt")],
    file_format: FormatOption = None,
    no_encoder: Annotated[
        bool, typer.Option("--no-encoder", help="omit the frozen encoder's weights")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Write a run's tokenizer in the layout of the released PAE tokenizers.

    `pae import pae` reads it back bit for bit. A .pt file holds the weights under `model`.

    Examples:
        pae export pae runs/dinov2_full tokenizer.pt

        pae export pae runs/dinov2_full tokenizer.safetensors --no-encoder
    """
    from rich.console import Console

    from pae_framework.plugins import load_registry
    from pae_framework.runs.opened import open_run

    chosen = chosen_format(file, file_format, force)
    opened = open_run(run, load_registry())
    from pae_framework.execution.context import StageContext

    context = StageContext.of_finished_run(opened, "tokenizer", Console(stderr=True))
    from pae_framework.interop.export import export_tokenizer

    count = export_tokenizer(context, file, chosen is Format.PT, not no_encoder)
    typer.echo(f"{file}: {count} tensors, {file.stat().st_size / 1e6:.1f} MB")
