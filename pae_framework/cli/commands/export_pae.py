"""``pae export pae``: write a run's tokenizer in the layout of released PAE tokenizers."""

from __future__ import annotations

from typing import Annotated

import typer

from pae_framework.cli.arguments import (
    ForceOption,
    Format,
    OutputArgument,
    PluginOption,
    TokenizerRunArgument,
    check_output,
    finished_context,
)
from pae_framework.system.printing import print_line


def export_pae(
    run: TokenizerRunArgument,
    file: OutputArgument,
    file_format: Annotated[
        Format | None, typer.Option("--format", help="default: from the file name")
    ] = None,
    no_encoder: Annotated[
        bool, typer.Option("--no-encoder", help="omit the weights of the frozen encoder")
    ] = False,
    plugin: PluginOption = None,
    force: ForceOption = False,
) -> None:
    """Write a run's tokenizer in the layout of the released PAE tokenizers.

    `pae import pae` reads it back bit for bit. A .pt file holds the weights under `model`.

    Examples:
        pae export pae runs/dinov2_full tokenizer.pt

        pae export pae runs/dinov2_full tokenizer.safetensors --no-encoder
    """
    as_torch = check_output(file, file_format, force)
    context = finished_context(run, "tokenizer", plugin)
    from pae_framework.interop.export import export_tokenizer

    count = export_tokenizer(context, file, as_torch, not no_encoder)
    print_line(f"{file}: {count} tensors, {file.stat().st_size / 1e6:.1f} MB")
