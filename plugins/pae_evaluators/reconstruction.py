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

BATCH = 50


class Reconstruction(Evaluator):
    """PSNR, SSIM and Frechet distance of the test images and their reconstructions.

    PSNR and SSIM are means over images; ``per_image.jsonl`` holds them one by one, with the
    image's index in its source.
    """

    def evaluate(self, inputs: EvaluationInputs, directory: Path) -> list[Metric]:
        """Compute the metrics; SSIM is left out for images smaller than its window."""
        originals, copies = inputs.images, inputs.reconstructions
        protocol = {**inputs.protocol, "count": len(originals), "images": "test images, uint8"}
        measured = {"psnr": _per_image(psnr, originals, copies)}
        metrics = [_psnr_metric(measured["psnr"], protocol)]
        if min(originals.shape[-2:]) >= WINDOW:
            measured["ssim"] = _per_image(ssim, originals, copies)
            metrics.append(_ssim_metric(measured["ssim"], protocol))
        else:
            warnings.warn(
                f"SSIM is left out: its window of {WINDOW} px is larger than the images",
                stacklevel=2,
            )
        metrics.append(DistanceToTestImages(inputs).metric("reconstruction", "rFD", copies))
        _write_per_image(directory / "per_image.jsonl", inputs.indices, measured)
        return metrics


def _psnr_metric(values: Tensor, protocol: Mapping[str, Any]) -> Metric:
    return Metric(
        "reconstruction/psnr",
        "PSNR",
        values.mean().item(),
        higher_is_better=True,
        protocol={**protocol, "unit": "dB, mean over images", "data_range": 1},
    )


def _ssim_metric(values: Tensor, protocol: Mapping[str, Any]) -> Metric:
    window = f"gaussian, {WINDOW} px, sigma {SIGMA}, inside the image"
    return Metric(
        "reconstruction/ssim",
        "SSIM",
        values.mean().item(),
        higher_is_better=True,
        protocol={**protocol, "window": window, "data_range": 1},
    )


def _per_image(measure: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    pairs = zip(a.split(BATCH), b.split(BATCH), strict=True)
    return torch.cat([measure(first, second) for first, second in pairs])


def _write_per_image(path: Path, indices: Sequence[int], measured: Mapping[str, Tensor]) -> None:
    rows = zip(*(values.tolist() for values in measured.values()), strict=True)
    lines = (
        json.dumps({"index": index, **dict(zip(measured, map(_short, row), strict=True))})
        for index, row in zip(indices, rows, strict=True)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _short(value: float) -> float:
    return round(value, 6)
