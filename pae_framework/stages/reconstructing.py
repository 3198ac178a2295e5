"""What ``pae reconstruct`` does: images through the tokenizer and back, into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from pae_framework.data.images import all_images, read_image
from pae_framework.data.pixels import to_float, to_uint8
from pae_framework.data.quality import psnr
from pae_framework.report.pictures import compare, grid, save_png
from pae_framework.stages.context import StageContext
from pae_framework.stages.parts import trained_tokenizer

BATCH = 64


@torch.no_grad()
def reconstruct_to_folder(
    context: StageContext, files: Sequence[Path], count: int, folder: Path
) -> list[tuple[str, float]]:
    """Reconstruct the files, or the first ``count`` test images; returns names with PSNR in dB.

    Raises:
        DataError: a file that is no image.
    """
    size = context.recipe.data.image_size
    if files:
        originals = torch.stack([read_image(path, size) for path in files])
        names = [path.stem for path in files]
    else:
        originals, _ = all_images(context.test_source, count)
        names = [f"test{index:06d}" for index in range(len(originals))]
    tokenizer = trained_tokenizer(context)
    parts = []
    for chunk in originals.split(BATCH):
        latents = tokenizer.encode(to_float(chunk.to(context.device))).latents
        parts.append(to_uint8(tokenizer.decode(latents)).cpu())
    reconstructions = torch.cat(parts)
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, reconstructions, strict=True):
        save_png(grid(image[None], columns=1, scale=1), folder / f"{name}.png")
    save_png(compare(originals, reconstructions), folder / "compare.png")
    return list(zip(names, psnr(originals, reconstructions).tolist(), strict=True))
