"""``pae reconstruct``: encode and decode images with a run's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def reconstruct(
    run: Annotated[Path, typer.Argument(help="directory of a run with a finished tokenizer")],
    images: Annotated[
        list[Path] | None, typer.Argument(help="image files; default: random test images")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="number of test images without files")] = 16,
    out: Annotated[
        Path | None, typer.Option(help="folder for the PNG files; default: RUN/reconstructed")
    ] = None,
) -> None:
    """Reconstruct images: one PNG each, and compare.png with the originals above them.

    Image files are center-cropped and resized to the recipe's image size; test images are chosen by
    the recipe's seed. Prints the PSNR of each image. Deletes earlier reconstructions in the folder.

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
