"""How easy the latents are to model by diffusion: SSC, LPC, GSQ, eRank (PAE, arXiv 2605.07915)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sklearn
import torch
from torch import Tensor

from pae_evaluators.config import ManifoldConfig
from pae_evaluators.local_continuity import perceptual_change, radius_weights
from pae_evaluators.pooled_latents import (
    CLASSES_OF_A_DRAW,
    draw_images,
    effective_rank,
    same_class_neighbors,
)
from pae_evaluators.spatial_coherence import image_coherences
from pae_framework.contracts import EvaluationInputs, Evaluator, Metric
from pae_framework.layers import map_to_tokens


@dataclass(frozen=True)
class _Of:
    """A diagnostic of a network: of the tokenizer's latents or of the encoder's features."""

    part: str
    name: str
    label: str
    higher_is_better: bool = True

    def metric(
        self,
        inputs: EvaluationInputs,
        value: float,
        protocol: Mapping[str, Any],
        std: float | None = None,
        **subject: Any,
    ) -> Metric:
        """The diagnostic as a metric; ``subject``: more about the network."""
        return Metric(
            f"manifold/{self.name}",
            self.label,
            value,
            self.higher_is_better,
            protocol,
            std=std,
            subject={**inputs.protocol_of(self.part), **subject},
        )


class Manifold(Evaluator):
    """Diagnostics of the latents of the test images.

    SSC and GSQ are also computed for the frozen encoder's features, as a bound for latents aligned
    with them. Each diagnostic has its own random numbers, so that turning one off does not change
    the others.
    """

    config: ManifoldConfig

    def evaluate(self, inputs: EvaluationInputs, directory: Path) -> list[Metric]:
        """Compute the diagnostics that are turned on."""
        metrics: list[Metric] = []
        if self.config.ssc:
            metrics += self._spatial_coherence(inputs)
        if self.config.lpc:
            metrics.append(self._local_continuity(inputs))
        if self.config.gsq:
            metrics += self._semantic_neighbors(inputs)
        if self.config.erank:
            metrics.append(_effective_rank(inputs))
        return metrics

    def _spatial_coherence(self, inputs: EvaluationInputs) -> list[Metric]:
        chosen = self._chosen(inputs)
        masks = inputs.masks_of(chosen)
        assert masks is not None, "SSC needs masks"
        latents = map_to_tokens(inputs.latents[chosen])
        return [
            *self._ssc(_Of("tokenizer", "ssc", "SSC"), latents, masks, inputs),
            *self._ssc(
                _Of("encoder", "ssc_encoder", "SSC encoder"), inputs.features(chosen), masks, inputs
            ),
        ]

    def _ssc(
        self, of: _Of, tokens: Tensor, masks: Tensor, inputs: EvaluationInputs
    ) -> list[Metric]:
        values = image_coherences(tokens, masks, self.config.sigma, inputs.seed)
        if not values:
            warnings.warn(
                f"{of.label} is skipped: none of {len(masks)} masks has two segments on the grid "
                f"of {tokens.shape[1]} tokens",
                stacklevel=2,
            )
            return []
        protocol = {
            **inputs.protocol_of("test_images"),
            "count": len(values),
            "skipped": f"{len(masks) - len(values)} images with one segment on the token grid",
            "images": "test images, drawn at random",
            "sigma": self.config.sigma,
            "clusters": "normalised spectral clustering, as many as segments in the image",
            "agreement": "normalised mutual information, geometric mean",
            "seed": inputs.seed,
            "scikit-learn": sklearn.__version__,
        }
        return [of.metric(inputs, sum(values) / len(values), protocol)]

    def _local_continuity(self, inputs: EvaluationInputs) -> Metric:
        chosen = self._chosen(inputs)
        changes = perceptual_change(
            inputs.latents[chosen],
            inputs.decode,
            inputs.perceptual,
            self.config.rhos,
            self.config.directions,
            torch.Generator().manual_seed(inputs.seed),
        )
        protocol = {
            **inputs.protocol_of("test_images"),
            "count": len(chosen),
            "images": "test images, drawn at random",
            "distance": "of D(z + move) and D(z)",
            **inputs.protocol_of("perceptual"),
            "rhos": list(self.config.rhos),
            "weights": [round(weight, 6) for weight in radius_weights(self.config.rhos)],
            "directions": self.config.directions,
            "seed": inputs.seed,
        }
        of = _Of("tokenizer", "lpc", "LPC", higher_is_better=False)
        return of.metric(inputs, changes.mean().item(), protocol)

    def _semantic_neighbors(self, inputs: EvaluationInputs) -> list[Metric]:
        if len(inputs.labels.unique()) < 2:
            warnings.warn("GSQ is skipped: all test images are of one class", stacklevel=2)
            return []
        draws = self._draws(inputs)
        latents = inputs.latents.flatten(2).mean(2)
        encoder = inputs.pooled_features
        return [
            _gsq(_Of("tokenizer", "gsq", "GSQ"), latents, draws, inputs),
            _gsq(_Of("encoder", "gsq_encoder", "GSQ encoder"), encoder, draws, inputs),
        ]

    def _chosen(self, inputs: EvaluationInputs) -> Tensor:
        """Indices of the test images for SSC and LPC, ascending."""
        generator = torch.Generator().manual_seed(inputs.seed)
        order = torch.randperm(len(inputs.latents), generator=generator)
        return order[: self.config.images].sort().values

    def _draws(self, inputs: EvaluationInputs) -> list[Tensor]:
        """Indices of the images of each draw; a single draw if it contains all images."""
        generator = torch.Generator().manual_seed(inputs.seed)
        draws = [
            draw_images(inputs.labels, self.config.draw_images, generator)
            for _ in range(self.config.draws)
        ]
        return draws[:1] if len(draws[0]) == len(inputs.labels) else draws


def _gsq(of: _Of, pooled: Tensor, draws: Sequence[Tensor], inputs: EvaluationInputs) -> Metric:
    labels = inputs.labels
    values = torch.tensor(
        [same_class_neighbors(pooled[draw], labels[draw]) for draw in draws], dtype=torch.float64
    )
    classes = len(labels.unique())
    protocol = {
        **inputs.protocol_of("test_images"),
        "count": len(draws[0]),
        "of": len(labels),
        "classes": min(classes, CLASSES_OF_A_DRAW),
        "of_classes": classes,
        "draws": len(draws),
        "images": "test images; a draw's own mean is subtracted",
        "seed": inputs.seed,
    }
    std = values.std().item() if len(draws) > 1 else None
    return of.metric(inputs, values.mean().item(), protocol, std=std)


def _effective_rank(inputs: EvaluationInputs) -> Metric:
    pooled = inputs.latents.flatten(2).mean(2)
    protocol = {
        **inputs.protocol_of("test_images"),
        "count": len(pooled),
        "images": "all test images, pooled, not centred",
    }
    of = _Of("tokenizer", "erank", "eRank")
    return of.metric(inputs, effective_rank(pooled), protocol, channels=pooled.shape[1])
