"""Diagnostics of the latent manifold as metrics, of any latents: of a tokenizer or of a reference.

Legend: M test images, B of them chosen, N tokens, D width of a token, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sklearn
import torch
from torch import Tensor

from pae_evaluators.config import ManifoldConfig
from pae_evaluators.local_continuity import Decode, perceptual_change, radius_weights
from pae_evaluators.pooled_latents import (
    CLASSES_OF_A_DRAW,
    draw_images,
    effective_rank,
    same_class_neighbors,
)
from pae_evaluators.spatial_coherence import image_coherences
from pae_framework.contracts import EvaluationInputs, Metric

BATCH = 50
"""Images that are decoded or compared at once."""
_CHOSEN = "test images, drawn at random"


@dataclass(frozen=True)
class Of:
    """What a diagnostic is of.

    Args:
        subject: of the metric.
        suffix: of the metric's name.
        word: after the metric's label.
        spread: whether the metric has the deviation over images.
    """

    subject: Mapping[str, Any]
    suffix: str = ""
    word: str = ""
    spread: bool = False

    @classmethod
    def reference(cls, name: str, words: str, **subject: Any) -> Of:
        """Latents that those of the tokenizer are compared with.

        Args:
            name: at the end of the metric's name and label.
            words: what they are.
            **subject: more about them.
        """
        return cls({"reference": words, **subject}, f"_{name}", f" {name}", spread=True)

    def metric(
        self,
        key: str,
        label: str,
        value: float,
        protocol: Mapping[str, Any],
        *,
        higher_is_better: bool = True,
        std: float | None = None,
    ) -> Metric:
        """The diagnostic as a metric."""
        return Metric(
            f"manifold/{key}{self.suffix}",
            f"{label}{self.word}",
            value,
            higher_is_better,
            protocol,
            std=std,
            subject=self.subject,
        )

    def deviation(self, values: Tensor) -> float | None:
        """Standard deviation of the values (B,) of the images; None if it is not wanted."""
        return values.std().item() if self.spread and len(values) > 1 else None


@dataclass(frozen=True)
class Diagnostics:
    """Computes the diagnostics of latents of the test images.

    Each has its own random numbers, so that turning one off does not change the others.
    """

    config: ManifoldConfig
    inputs: EvaluationInputs

    @property
    def lacks_lpc(self) -> str | None:
        """Why LPC cannot be computed; None if it can, or is turned off."""
        missing = self.inputs.unavailable
        return missing.get("decode", missing.get("perceptual")) if self.config.lpc else None

    @property
    def classes(self) -> int:
        """Classes of the test images; GSQ means nothing for one."""
        return len(self.inputs.labels.unique())

    def chosen(self, most: int | None = None) -> Tensor:
        """Indices (B,) of the test images for SSC and LPC, ascending; at most ``most`` of them."""
        generator = torch.Generator().manual_seed(self.inputs.seed)
        order = torch.randperm(len(self.inputs.latents), generator=generator)
        return order[: self.config.images][:most].sort().values

    def draws(self) -> list[Tensor]:
        """Indices of the images of each draw for GSQ; a single draw if it contains all images."""
        labels = self.inputs.labels
        generator = torch.Generator().manual_seed(self.inputs.seed)
        draws = [
            draw_images(labels, self.config.draw_images, generator)
            for _ in range(self.config.draws)
        ]
        return draws[:1] if len(draws[0]) == len(labels) else draws

    def ssc(self, of: Of, tokens: Tensor, chosen: Tensor) -> Metric | None:
        """SSC of tokens (B, N, D) of chosen images; None if no mask has two segments on it."""
        masks = self.inputs.masks_of(chosen)
        assert masks is not None, "SSC needs masks"
        values = image_coherences(tokens, masks, self.config.sigma, self.inputs.seed)
        if not values:
            return None
        protocol = {
            **self.inputs.protocol_of("test_images"),
            "count": len(values),
            "skipped": f"{len(masks) - len(values)} images with one segment on the token grid",
            "images": _CHOSEN,
            "sigma": self.config.sigma,
            "clusters": "normalised spectral clustering, as many as segments in the image",
            "agreement": "normalised mutual information, geometric mean",
            "seed": self.inputs.seed,
            "scikit-learn": sklearn.__version__,
        }
        std = of.deviation(torch.tensor(values, dtype=torch.float64))
        return of.metric("ssc", "SSC", sum(values) / len(values), protocol, std=std)

    def lpc(self, of: Of, latents: Tensor, decode: Decode) -> Metric:
        """LPC of latents (B, C, h, w) with their decoder."""
        changes = perceptual_change(
            latents,
            decode,
            self.inputs.perceptual,
            self.config.rhos,
            self.config.directions,
            torch.Generator().manual_seed(self.inputs.seed),
        )
        protocol = {
            **self._of_distance(len(latents), "D(z + move) and D(z)"),
            "rhos": list(self.config.rhos),
            "weights": [round(weight, 6) for weight in radius_weights(self.config.rhos)],
            "directions": self.config.directions,
            "seed": self.inputs.seed,
        }
        return _lower("lpc", "LPC", of, changes, protocol)

    def distance(self, of: Of, key: str, label: str, pair: str, a: Tensor, b: Tensor) -> Metric:
        """Mean perceptual distance of images (B, 3, S, S) in [0, 1]; ``pair`` names a and b."""
        protocol = {**self._of_distance(len(a), pair), "seed": self.inputs.seed}
        distances = [
            self.inputs.perceptual(first, second).cpu().double()
            for first, second in zip(a.split(BATCH), b.split(BATCH), strict=True)
        ]
        return _lower(key, label, of, torch.cat(distances), protocol)

    def _of_distance(self, count: int, pair: str) -> dict[str, Any]:
        return {
            **self.inputs.protocol_of("test_images"),
            "count": count,
            "images": _CHOSEN,
            "distance": f"of {pair}",
            **self.inputs.protocol_of("perceptual"),
        }

    def gsq(self, of: Of, pooled: Tensor, draws: Sequence[Tensor]) -> Metric:
        """GSQ of pooled latents (M, C), over draws of images."""
        labels = self.inputs.labels
        values = torch.tensor(
            [same_class_neighbors(pooled[draw], labels[draw]) for draw in draws],
            dtype=torch.float64,
        )
        protocol = {
            **self.inputs.protocol_of("test_images"),
            "count": len(draws[0]),
            "of": len(labels),
            "classes": min(self.classes, CLASSES_OF_A_DRAW),
            "of_classes": self.classes,
            "draws": len(draws),
            "images": "test images; a draw's own mean is subtracted",
            "seed": self.inputs.seed,
        }
        std = values.std().item() if len(draws) > 1 else None
        return of.metric("gsq", "GSQ", values.mean().item(), protocol, std=std)

    def erank(self, of: Of, pooled: Tensor) -> Metric:
        """Effective rank of pooled latents (M, C)."""
        protocol = {
            **self.inputs.protocol_of("test_images"),
            "count": len(pooled),
            "images": "all test images, pooled, not centred",
        }
        of = replace(of, subject={**of.subject, "channels": pooled.shape[1]})
        return of.metric("erank", "eRank", effective_rank(pooled), protocol)


def _lower(key: str, label: str, of: Of, values: Tensor, protocol: Mapping[str, Any]) -> Metric:
    """The mean of changes or distances (B,): lower is better."""
    mean, std = values.mean().item(), of.deviation(values)
    return of.metric(key, label, mean, protocol, higher_is_better=False, std=std)
