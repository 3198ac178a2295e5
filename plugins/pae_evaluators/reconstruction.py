"""How closely reconstructions match the test images."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pae_evaluators.feature_distance import DistanceToTestImages
from pae_evaluators.image_quality import SIGMA, WINDOW, ssim
from pae_framework.contracts import EvaluationInputs, Evaluator, Metric
from pae_framework.data.pixels import psnr
from pae_framework.system.files import write_text

BATCH = 50


class Reconstruction(Evaluator):
    """PSNR, SSIM and Frechet distance of the test images and their reconstructions.

    PSNR and SSIM are means over images. ``per_image.jsonl`` has the values of each image, with its
    index in the data source.
    """

    def evaluate(self, inputs: EvaluationInputs, directory: Path) -> list[Metric]:
        """Compute the metrics; images smaller than the window of SSIM have no SSIM."""
        originals, copies = inputs.images, inputs.reconstructions
        protocol = {
            **inputs.protocol_of("test_images"),
            "count": len(originals),
            "images": "test images, uint8",
        }
        subject = inputs.protocol_of("tokenizer")
        measured = {"psnr": _per_image(psnr, originals, copies)}
        unit = "dB, mean over images"
        metrics = [_mean("PSNR", measured["psnr"], {**protocol, "unit": unit}, subject)]
        if min(originals.shape[-2:]) >= WINDOW:
            measured["ssim"] = _per_image(ssim, originals, copies)
            window = f"gaussian, {WINDOW} px, sigma {SIGMA}, inside the image"
            metrics.append(_mean("SSIM", measured["ssim"], {**protocol, "window": window}, subject))
        else:
            warnings.warn(
                f"SSIM is skipped: its window of {WINDOW} px is larger than the images",
                stacklevel=2,
            )
        distance = DistanceToTestImages(inputs)
        metrics.append(distance.metric("reconstruction", "rFD", copies, subject=subject))
        _write_per_image(directory / "per_image.jsonl", inputs.indices, measured)
        return metrics


def _mean(
    label: str, values: Tensor, protocol: Mapping[str, Any], subject: Mapping[str, Any]
) -> Metric:
    return Metric(
        f"reconstruction/{label.lower()}",
        label,
        values.mean().item(),
        higher_is_better=True,
        protocol={**protocol, "data_range": 1},
        subject=subject,
    )


def _per_image(measure: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    pairs = zip(a.split(BATCH), b.split(BATCH), strict=True)
    return torch.cat([measure(first, second) for first, second in pairs])


def _write_per_image(path: Path, indices: Sequence[int], measured: Mapping[str, Tensor]) -> None:
    rows = zip(*(values.tolist() for values in measured.values()), strict=True)
    lines = []
    for index, row in zip(indices, rows, strict=True):
        values = {name: round(value, 6) for name, value in zip(measured, row, strict=True)}
        lines.append(json.dumps({"index": index, **values}) + "\n")
    write_text(path, "".join(lines))
