"""``pae reference build``: statistics and images to compare samples with."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import (
    BatchSizeOption,
    CacheOption,
    CropOption,
    ForceOption,
    InceptionOption,
    PluginOption,
)
from pae_framework.cli.output import installed_registry, resumable
from pae_framework.errors import UsageError
from pae_framework.system.printing import print_line


@resumable()
def build_reference(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="a folder of images, an npz file, a run, or RECIPE:train or RECIPE:test",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="the npz file to write")],
    images: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="images to store for precision and recall, chosen at random"
        ),
    ] = 10_000,
    weights: InceptionOption = "default",
    size: CropOption = None,
    batch_size: BatchSizeOption = 64,
    cache: CacheOption = None,
    plugin: PluginOption = None,
    force: ForceOption = False,
) -> None:
    """Write a reference file: Inception statistics of all images of DATA, and some of the images.

    The file has the form of the ADM evaluator's (mu, sigma, mu_s, sigma_s, arr_0), which reads it
    too, and a protocol. Run the same command again to resume after an interruption.

    Examples:
        pae reference build photos/ --size 256 --out photos256.npz

        pae reference build quickstart:train --out digits.npz --images 1000
    """
    from pae_framework.cli.extraction import extraction_of, require_writable

    if out.suffix != ".npz":
        raise UsageError(f"--out {out}: the file name must end in .npz")
    if out.exists() and not force:
        raise UsageError(f"{out} exists; replace it with --force")
    require_writable(out)
    extraction = extraction_of(weights, cache, batch_size)
    from pae_framework.evaluation import samples

    count = samples.build_reference(
        data, out, images, extraction, size, partial(installed_registry, plugin or ())
    )
    print_line(f"reference of {count} images: {out}")
