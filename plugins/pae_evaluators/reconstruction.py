"""How closely reconstructions match the test images."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pae_evaluators.config import ReconstructionConfig
from pae_evaluators.feature_distance import DistanceToTestImages
from pae_evaluators.image_quality import SIGMA, WINDOW, ssim
from pae_evaluators.inception_distance import InceptionDistance
from pae_evaluators.pictures import save_rows
from pae_framework.contracts import EvaluationInputs, Evaluator, Metric
from pae_framework.data.pixels import PSNR_LIMIT, decibels, squared_error, to_float
from pae_framework.system.files import write_text

BATCH = 50
"""Pairs of images that are compared at once; only these are in memory as floats."""
DIFFERENCE = 4
"""How many times brighter differences are shown."""

_CAPTION = (
    "Reconstructions of lowest PSNR, the worst first: original, reconstruction, difference "
    f"({DIFFERENCE} times as bright)."
)

logger = logging.getLogger(__name__)

Measure = Callable[[Tensor, Tensor], Tensor]
"""One number (B,) for each pair of images (B, 3, S, S) uint8."""


class Reconstruction(Evaluator):
    """PSNR, SSIM, perceptual and Frechet distance of the test images and their reconstructions.

    ``per_image.jsonl`` has the values of each image, with its index in the data source.
    ``worst.png`` shows the images of lowest PSNR in rows, the worst first: original,
    reconstruction, and their difference, :data:`DIFFERENCE` times as bright.
    """

    config: ReconstructionConfig

    def evaluate(self, inputs: EvaluationInputs, directory: Path) -> list[Metric]:
        """Compute the metrics; images smaller than the window of SSIM have no SSIM."""
        originals, copies = inputs.images, inputs.reconstructions
        if (lacking := inputs.unavailable.get("perceptual")) is not None:
            self.notes.not_available["LPIPS"] = lacking
        measured = _per_image(_measures(inputs), originals, copies)
        error = measured.pop("error")
        measured = {"psnr": decibels(error), **measured}
        subject = inputs.protocol_of("tokenizer")
        metrics = _metrics(error, measured, inputs)
        if self.config.frechet:
            distance = DistanceToTestImages(inputs)
            metrics.append(distance.metric("reconstruction", "rFD", copies, subject=subject))
        if self.config.weights is not None:
            inception = InceptionDistance(inputs, self.config.weights)
            statistics = inception.statistics(copies)
            metrics.append(
                inception.metric_of("reconstruction", "rFD", statistics, subject=subject)
            )
        _write_per_image(directory / "per_image.jsonl", inputs.indices, measured)
        if self.config.worst:
            worst = error.sort(descending=True, stable=True).indices[: self.config.worst]
            _save_pairs(originals[worst], copies[worst], directory / "worst.png")
        return metrics


def _measures(inputs: EvaluationInputs) -> dict[str, Measure]:
    """What is measured of each image, by its key in ``per_image.jsonl``."""
    measures: dict[str, Measure] = {"error": squared_error}
    if min(inputs.images.shape[-2:]) >= WINDOW:
        measures["ssim"] = ssim
    else:
        warnings.warn(
            f"SSIM is skipped: its window of {WINDOW} px is larger than the images", stacklevel=3
        )
    if "perceptual" in inputs.unavailable:
        return measures
    key = "lpips" if inputs.perceptual_name.startswith("LPIPS") else "perceptual"
    measures[key] = lambda a, b: inputs.perceptual(to_float(a), to_float(b)).cpu().double()
    return measures


def _per_image(measures: Mapping[str, Measure], a: Tensor, b: Tensor) -> dict[str, Tensor]:
    rows = [
        [measure(first, second) for measure in measures.values()]
        for first, second in zip(a.split(BATCH), b.split(BATCH), strict=True)
    ]
    columns = map(torch.cat, zip(*rows, strict=True))
    return dict(zip(measures, columns, strict=True))


def _metrics(
    error: Tensor, measured: Mapping[str, Tensor], inputs: EvaluationInputs
) -> list[Metric]:
    """Metrics of pairs of images; PSNR in both usual conventions.

    Args:
        error: mean squared error (M,) of each image.
        measured: the other values (M,) of each image.
        inputs: of the evaluator.
    """
    limit = f"{PSNR_LIMIT} dB"
    if equal := int((measured["psnr"] >= PSNR_LIMIT).sum()):
        logger.warning(
            "%d of %d reconstructions equal their image; their PSNR counts as %s in the mean",
            *(equal, len(error), limit),
        )
    pooled = "dB, of the mean squared error over all images"
    window = f"gaussian, {WINDOW} px, sigma {SIGMA}, inside the image"
    perceptual: Mapping[str, Any] = {}
    if not {"lpips", "perceptual"}.isdisjoint(measured):
        perceptual = inputs.protocol_of("perceptual")
    values: dict[str, tuple[str, Tensor, Mapping[str, Any]]] = {
        "psnr": ("PSNR", measured["psnr"], {"unit": "dB, mean over images", "limit": limit}),
        "psnr_pooled": (
            "PSNR (pooled error)",
            decibels(error.mean()),
            {"unit": pooled, "limit": limit},
        ),
        **{
            key: (label, measured[key], {"mean": "over images", **more})
            for key, label, more in (
                ("ssim", "SSIM", {"window": window}),
                ("lpips", "LPIPS", perceptual),
                ("perceptual", "Perceptual distance", perceptual),
            )
            if key in measured
        },
    }
    return [
        Metric(
            f"reconstruction/{key}",
            label,
            value.mean().item(),
            higher_is_better=key not in ("lpips", "perceptual"),
            protocol={
                **inputs.protocol_of("test_images"),
                "count": len(error),
                "images": "test images, uint8",
                "data_range": 1,
                **more,
            },
            subject=inputs.protocol_of("tokenizer"),
        )
        for key, (label, value, more) in values.items()
    ]


def _write_per_image(path: Path, indices: Sequence[int], measured: Mapping[str, Tensor]) -> None:
    rows = zip(*(values.tolist() for values in measured.values()), strict=True)
    lines = []
    for index, row in zip(indices, rows, strict=True):
        values = {name: round(value, 6) for name, value in zip(measured, row, strict=True)}
        lines.append(json.dumps({"index": index, **values}) + "\n")
    write_text(path, "".join(lines))


def _save_pairs(originals: Tensor, copies: Tensor, path: Path) -> None:
    difference = (originals.int() - copies.int()).abs() * DIFFERENCE
    save_rows([originals, copies, difference.clamp(max=255).to(torch.uint8)], path)
    write_text(path.with_suffix(".txt"), _CAPTION)
