"""``pae reconstruct``: send images through a finished tokenizer and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def reconstruct(
    run: Annotated[Path, typer.Argument(help="directory of a run whose tokenizer is trained")],
    images: Annotated[
        list[Path] | None, typer.Argument(help="image files; default: test images, drawn at random")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="test images, where no file is given")] = 16,
    out: Annotated[
        Path | None, typer.Option(help="folder for the PNG files; default: RUN/reconstructed")
    ] = None,
) -> None:
    """Reconstruct images: originals over reconstructions in compare.png, and one PNG each.

    Image files are cropped at the centre and resized to the recipe's size; test images are drawn by
    the recipe's seed. Prints name and PSNR of each. Earlier reconstructions there are removed.

    Example:
        pae reconstruct runs/quickstart --count 8
    """
    from rich.console import Console

    from pae_framework.plugins import load_registry
    from pae_framework.runs.opened import open_run

    opened = open_run(run, load_registry())
    from pae_framework.execution.context import StageContext

    context = StageContext.of_finished_run(opened, "tokenizer", Console(stderr=True))
    from pae_framework.evaluation.reconstruct_to_folder import reconstruct_to_folder

    folder = out or run / "reconstructed"
    for name, psnr in reconstruct_to_folder(context, images or (), count, folder):
        typer.echo(f"{name}  {psnr:.2f} dB")
    typer.echo(f"reconstructions in {folder} (compare.png shows them under their originals)")
