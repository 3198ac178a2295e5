"""The command ``pae reconstruct``: images and their reconstructions in a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pae_framework.contracts import Tokenizer
from pae_framework.data.data_settings import STORED
from pae_framework.data.image_notes import NOTES
from pae_framework.data.images import random_subset, read_image, read_images
from pae_framework.data.pixels import psnr, to_float, to_uint8
from pae_framework.execution.artifacts import trained_tokenizer
from pae_framework.execution.context import StageContext
from pae_framework.execution.output_folder import restart
from pae_framework.report.pictures import compare, grid, save_png

BATCH = 64
RECORD = "reconstructed.json"
WRITTEN = r"\d{3,}_.*\.png"
"""Names of the reconstructions."""


@torch.no_grad()
def reconstruct_to_folder(
    context: StageContext,
    files: Sequence[Path],
    count: int,
    folder: Path,
    load_tokenizer: Callable[[StageContext], Tokenizer] = trained_tokenizer,
) -> list[tuple[str, float]]:
    """Reconstruct the files, or ``count`` test images drawn at random with the recipe's seed.

    Writes ``000_<name of the file>.png`` etc., compare.png and reconstructed.json, and removes the
    reconstructions of an earlier call. Returns file names with PSNR in dB.

    Raises:
        DataError: a file is not an image.
    """
    originals, stems = _originals(context, files, count)
    NOTES.summarize()
    reconstructions = _reconstructions(load_tokenizer(context), originals, context.device)
    names = [f"{index:03d}_{stem}.png" for index, stem in enumerate(stems)]
    measured = list(zip(names, psnr(originals, reconstructions).tolist(), strict=True))
    restart(folder, RECORD, WRITTEN, names, {"psnr": dict(measured)})
    for name, image in zip(names, reconstructions, strict=True):
        save_png(grid(image[None], columns=1, scale=1), folder / name)
    save_png(compare(originals, reconstructions), folder / "compare.png")
    return measured


def _originals(
    context: StageContext, files: Sequence[Path], count: int
) -> tuple[Tensor, list[str]]:
    """Images (M, 3, S, S) uint8, and their names."""
    if files:
        data = context.recipe.data
        read = partial(
            read_image,
            size=data.image_size,
            background=getattr(data.train.config, "background", STORED),
        )
        return torch.stack([read(path) for path in files]), [file.stem for file in files]
    source = context.test_source
    indices = random_subset(len(source), count, context.recipe.seed)
    return read_images(source, indices)[0], [f"test{index:06d}" for index in indices]


def _reconstructions(tokenizer: Tokenizer, originals: Tensor, device: torch.device) -> Tensor:
    batches = []
    for batch in originals.split(BATCH):
        latents = tokenizer.encode(to_float(batch.to(device))).latents  # (B, C, h, w)
        batches.append(to_uint8(tokenizer.decode(latents)).cpu())
    return torch.cat(batches)
