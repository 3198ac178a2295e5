"""iFID: images half-way between latents and their neighbors, compared with the test images.

Xu et al., arXiv 2603.05630: it predicts the FID of a generator without training one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pae_evaluators.config import InterpolationConfig
from pae_evaluators.feature_distance import DistanceToTestImages
from pae_evaluators.inception_distance import InceptionDistance
from pae_evaluators.nearest_latents import draw_neighbors, nearest_latents
from pae_framework.contracts import EvaluationInputs, Evaluator, Metric
from pae_framework.data.pixels import to_uint8
from pae_framework.errors import DataError
from pae_framework.metrics.feature_statistics import FeatureStatistics

logger = logging.getLogger(__name__)

BATCH = 50
"""Latents that are decoded at once."""
PART = 50 * BATCH
"""Images in memory at once; several processes share the extraction of their features."""
_PARALLEL = 1e-6
"""Sine of the angle below which latents are averaged, as in the paper's code."""
_SAME = 1e-8
"""Squared difference of a latent to a neighbor, over its mean square, that means the same image."""


class Interpolation(Evaluator):
    """Frechet distance of decoded interpolations to the test images: iFD, in Inception iFID.

    Each test latent is interpolated half-way to one of its nearest training latents.
    """

    config: InterpolationConfig

    def evaluate(self, inputs: EvaluationInputs, directory: Path) -> list[Metric]:
        """Compute iFD in the extractor's features, and with ``weights`` in Inception's.

        Raises:
            DataError: there are fewer training latents than neighbors.
        """
        if (lacking := inputs.unavailable.get("decode")) is not None:
            self.notes.not_available["iFD"] = lacking
            return []
        count, available = self.config.neighbors, len(inputs.train_latents)
        if available < count:
            raise DataError(
                f"`neighbors` is {count}, but there are {available} training latents; set "
                f"`neighbors` to {available} or less"
            )
        nearest = nearest_latents(inputs.latents, inputs.train_latents, count, inputs.device)
        distances: list[DistanceToTestImages | InceptionDistance] = [DistanceToTestImages(inputs)]
        if self.config.weights is not None:
            distances.append(InceptionDistance(inputs, self.config.weights))
        totals = [FeatureStatistics(distance.width) for distance in distances]
        for images in _parts(inputs, nearest):
            for total, distance in zip(totals, distances, strict=True):
                total.merge(distance.statistics(images))
        protocol = {
            "interpolation": "slerp half-way, one angle for the whole latent",
            "neighbor": f"one of the {count} nearest training latents by cosine, drawn with "
            "probability softmax(-mean squared difference)",
            "latents": "not normalized; training images not mirrored",
            "training_data": inputs.protocol_of("training_images")["training_data"],
            "training_latents": available,
            "seed": inputs.seed,
        }
        subject = inputs.protocol_of("tokenizer")
        return [
            distance.metric_of("interpolation", "iFD", total, subject=subject, protocol=protocol)
            for total, distance in zip(totals, distances, strict=True)
        ]


def _parts(inputs: EvaluationInputs, nearest: Tensor) -> Iterator[Tensor]:
    """The decoded interpolations (B, 3, S, S) uint8 of all test images, some at a time.

    Args:
        inputs: of the evaluator.
        nearest: rows (M, K) of the neighbors of each test image.
    """
    same = 0
    for part in torch.arange(len(nearest)).split(PART):
        images = []
        for some in part.split(BATCH):
            latents, indices = inputs.latents[some], [inputs.indices[i] for i in some.tolist()]
            neighbors, differences = _neighbors(inputs, latents, nearest[some])
            same += int((differences[:, 0] <= _SAME * _mean_square(latents)).sum())
            drawn = draw_neighbors(differences, inputs.seed, indices)
            other = neighbors[torch.arange(len(drawn)), drawn]
            images.append(to_uint8(inputs.decode(slerp(latents, other))).cpu())
        yield torch.cat(images)
    if same:
        logger.warning(
            "%d of %d test images are among the training images, so they are their own nearest "
            "neighbors; iFD is meant for images that the training has not seen",
            *(same, len(nearest)),
        )


def _neighbors(inputs: EvaluationInputs, latents: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Neighbors (B, K, C, h, w) of latents (B, C, h, w), and mean squared differences (B, K)."""
    found = inputs.train_latents.read(rows.flatten())
    differences = _mean_square(found - latents.repeat_interleave(rows.shape[1], 0))
    return found.unflatten(0, rows.shape), differences.view(rows.shape)


def _mean_square(latents: Tensor) -> Tensor:
    """Of each of latents (B, C, h, w)."""
    return latents.double().square().flatten(1).mean(1)


def slerp(a: Tensor, b: Tensor) -> Tensor:
    """Latents half-way from a to b, both (B, C, h, w), on the arc between whole latents.

    The angle is that between the flattened latents; their lengths need not be equal. Where it is 0
    or 180 degrees, the arc is not defined and the mean is taken.
    """
    x, y = a.double().flatten(1), b.double().flatten(1)
    cosine = (F.normalize(x, dim=1) * F.normalize(y, dim=1)).sum(1, keepdim=True).clamp(-1, 1)
    angle = cosine.acos()
    # sin(angle / 2) / sin(angle)
    weight = torch.where(angle.sin() < _PARALLEL, 0.5, 0.5 / (angle / 2).cos())  # (B, 1)
    return (weight * (x + y)).view_as(a).to(a.dtype)
