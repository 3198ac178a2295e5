"""What ``pae reconstruct`` does: images through the tokenizer and back, into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pae_framework.data.images import all_images, read_image, subset
from pae_framework.data.pixels import psnr, to_float, to_uint8
from pae_framework.execution.artifacts import trained_tokenizer
from pae_framework.execution.context import StageContext
from pae_framework.execution.output_folder import start_again
from pae_framework.report.pictures import compare, grid, save_png

BATCH = 64
RECORD = "reconstructed.json"
WRITTEN = r"\d{3,}_.*\.png"
"""Names of the reconstructions."""


@torch.no_grad()
def reconstruct_to_folder(
    context: StageContext, files: Sequence[Path], count: int, folder: Path
) -> list[tuple[str, float]]:
    """Reconstruct the files, or ``count`` test images drawn at random by the recipe's seed.

    Writes ``000_<name of the file>.png`` and so on, compare.png and reconstructed.json, and removes
    the reconstructions that an earlier call left there. Returns file names with PSNR in dB.

    Raises:
        DataError: a file that is no image.
    """
    originals, stems = _originals(context, files, count)
    reconstructions = _reconstructions(context, originals)
    names = [f"{index:03d}_{stem}.png" for index, stem in enumerate(stems)]
    measured = list(zip(names, psnr(originals, reconstructions).tolist(), strict=True))
    start_again(folder, RECORD, WRITTEN, names, {"psnr": dict(measured)})
    for name, image in zip(names, reconstructions, strict=True):
        save_png(grid(image[None], columns=1, scale=1), folder / name)
    save_png(compare(originals, reconstructions), folder / "compare.png")
    return measured


def _originals(
    context: StageContext, files: Sequence[Path], count: int
) -> tuple[Tensor, list[str]]:
    """Images (M, 3, S, S) uint8, and what to call them."""
    if files:
        size = context.recipe.data.image_size
        return torch.stack([read_image(path, size) for path in files]), [f.stem for f in files]
    source = context.test_source
    indices = subset(len(source), count, context.recipe.seed)
    return all_images(source, indices)[0], [f"test{index:06d}" for index in indices]


def _reconstructions(context: StageContext, originals: Tensor) -> Tensor:
    tokenizer = trained_tokenizer(context)
    parts = []
    for chunk in originals.split(BATCH):
        latents = tokenizer.encode(to_float(chunk.to(context.device))).latents
        parts.append(to_uint8(tokenizer.decode(latents)).cpu())
    return torch.cat(parts)
