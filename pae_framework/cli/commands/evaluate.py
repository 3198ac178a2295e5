"""``pae evaluate``: metrics of anyone's samples against anyone's reference."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pae_framework.cli.arguments import (
    BatchSizeOption,
    CacheOption,
    CropOption,
    InceptionOption,
    JsonOption,
)
from pae_framework.cli.card_text import print_card
from pae_framework.cli.output import installed_registry, print_json, warn
from pae_framework.system.printing import print_line


class Convention(StrEnum):
    """Whose definitions of the metrics are used."""

    ADM = "adm"
    FIDELITY = "fidelity"


def evaluate(
    samples: Annotated[
        str,
        typer.Option(
            metavar="SET",
            help="an npz file (arr_0: uint8, N x H x W x 3), a folder of images, a run, or "
            "RECIPE:train or RECIPE:test",
        ),
    ],
    reference: Annotated[
        str,
        typer.Option(
            metavar="SET",
            help="a reference npz of the ADM evaluator, of pytorch-fid or of `pae reference "
            "build`, or a set of images as for --samples",
        ),
    ],
    metrics: Annotated[
        Convention,
        typer.Option(
            help="adm: IS, FID, sFID, precision, recall as papers on ImageNet report them; "
            "fidelity: FID, KID, IS, precision, recall as torch-fidelity defines them, all in "
            "Inception's features"
        ),
    ] = Convention.ADM,
    weights: InceptionOption = "default",
    size: CropOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="also write the card as JSON")
    ] = None,
    batch_size: BatchSizeOption = 64,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure samples against a reference: FID and related metrics, each with its protocol.

    Features are cached under the contents of the images and the weights, so the same command
    resumes after an interruption, and a second reference costs nothing. What a reference lacks is
    reported before anything is computed.

    Examples:
        pae evaluate --samples samples.npz --reference VIRTUAL_imagenet256_labeled.npz

        pae evaluate --samples png/ --reference photos/ --size 256 --metrics fidelity

        pae evaluate --samples runs/quickstart --reference quickstart:test --out card.json
    """
    from pae_framework.cli.extraction import extraction_of, require_writable

    if out is not None:
        require_writable(out)
    extraction = extraction_of(weights, cache, batch_size)
    from pae_framework.evaluation.samples import evaluate_samples
    from pae_framework.system.files import write_json

    card = evaluate_samples(samples, reference, metrics.value, extraction, size, installed_registry)
    if out is not None:
        write_json(out, card.plain())
    if as_json:
        print_json(card.plain())
    else:
        print_card(card.plain())
        if out is not None:
            print_line(f"card: {out}")
    for caution in card.cautions:
        warn(caution)
