"""``pae reconstruct``: encode and decode images with a run's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import PluginOption, TokenizerRunArgument, finished_context
from pae_framework.system.printing import print_line


def reconstruct(
    run: TokenizerRunArgument,
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="IMAGE", help="image files; default: random test images"),
    ] = None,
    count: Annotated[int, typer.Option(min=1, metavar="N", help="number of test images")] = 16,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="folder for the PNG files; default: RUN/reconstructed"),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Reconstruct images: one PNG each, and compare.png with the originals above them.

    Image files are center-cropped and resized to the recipe's image size. The recipe's seed chooses
    the test images. Prints the PSNR of each image. Deletes earlier reconstructions in the folder.

    Example:
        pae reconstruct runs/quickstart --count 8
    """
    context = finished_context(run, "tokenizer", plugin)
    from pae_framework.evaluation.reconstruct_to_folder import reconstruct_to_folder

    folder = out or run / "reconstructed"
    for name, psnr in reconstruct_to_folder(context, images or (), count, folder):
        print_line(f"{name}  {psnr:.2f} dB")
    print_line(f"reconstructions in {folder} (compare.png shows them under their originals)")
