"""Synthetic inputs for evaluators: small, and limited to what the config declares.

Legend: M images, B images of a batch, N tokens, S image side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pae_framework.contracts import EvaluationInputs, FeatureReference, SampleSet
from pae_framework.data.pixels import to_uint8
from pae_framework.metrics.fdr6 import VALIDATION
from pae_framework.testing.expect import expect
from pae_framework.testing.synthetic import normal, synthetic_images

IMAGES, CLASSES, GRID, PATCH, WIDTH, CHANNELS = 24, 3, 4, 4, 16, 4
SIZE = GRID * PATCH
_PARTS = {"tokenizer", "encoder", "extractor", "perceptual", "generator"}


class SyntheticExtractor:
    """Six fixed random projections of the pixels."""

    name = "synthetic"

    def label(self, label: str) -> str:
        """With the name."""
        return f"{label} (synthetic)"

    def __call__(self, images: Tensor) -> Tensor:
        """Features (M, 6) float64 of uint8 images (M, 3, S, S)."""
        flat = images.double().flatten(1) / 255
        return flat @ normal(flat.shape[1], 6, seed=11).double()


class SyntheticInception:
    """Fixed random projections of the pixels in place of Inception's features."""

    sha256 = "none"
    widths = (6, 4)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (M, 6) and (M, 4) of uint8 images (M, 3, S, S)."""
        flat = images.float().flatten(1) / 255
        first, second = (
            flat @ normal(flat.shape[1], width, seed=13 + width) for width in self.widths
        )
        return first, second

    def logits(self, pool: Tensor) -> Tensor:
        """Logits (M, 5)."""
        return pool @ normal(pool.shape[1], 5, seed=14)


class SyntheticFDr6Features:
    """A fixed random projection of the pixels in place of a network of FDr6."""

    digest = "none"

    def __init__(self, seed: int, training: Tensor):
        self._seed, self._training = seed, training

    @property
    def reference(self) -> FeatureReference:
        """The training images."""
        features = self(self._training)
        protocol = {"reference": "training images", "reference_count": len(features)}
        return FeatureReference(features.mean(0), features.T.cov(), len(features), protocol)

    def __call__(self, images: Tensor) -> Tensor:
        """Features (M, 6) float64 of uint8 images (M, 3, S, S)."""
        flat = images.double().flatten(1) / 255
        return flat @ normal(flat.shape[1], 6, seed=20 + self._seed).double()


class SyntheticLatents:
    """Random latents in place of those of the training images."""

    def __len__(self) -> int:
        return 2 * IMAGES

    def read(self, indices: Tensor) -> Tensor:
        """Latents (B, 4, 4, 4) of rows (B,)."""
        return normal(len(self), CHANNELS, GRID, GRID, seed=4)[indices]


class SyntheticInputs(EvaluationInputs):
    """Inputs from 24 synthetic images in 3 classes.

    Args:
        needs: the values of ``EVALUATION_NEEDS`` that may be used; using another one fails.
    """

    indices = range(IMAGES)
    class_names = ("one", "two", "three")
    seed = 0
    perceptual_name = "mean absolute difference"

    def __init__(self, needs: Iterable[str]):
        self._needs = frozenset(needs)
        self._images = to_uint8(synthetic_images(IMAGES, SIZE))
        self._labels = torch.arange(IMAGES) % CLASSES

    @property
    def protocol(self) -> Mapping[str, Any]:
        return {**self.protocol_of("test_images"), "evaluation_seed": self.seed}

    def protocol_of(self, part: str) -> Mapping[str, Any]:
        """A made-up identity."""
        if part == "test_images":
            return {"test_data": "synthetic", "image_size": f"{SIZE} x {SIZE}"}
        if part == "training_images":
            return {"training_data": "synthetic", "image_size": f"{SIZE} x {SIZE}"}
        expect(part in _PARTS, f"asked for the part {part!r}; known are {sorted(_PARTS)}")
        return {part: "synthetic", f"{part}_digest": "none"}

    @property
    def images(self) -> Tensor:
        return self._images

    @property
    def labels(self) -> Tensor:
        return self._labels

    @property
    def masks(self) -> Tensor | None:
        """Two segments: a disc and what is around it."""
        return self._needed("masks", _masks())

    @property
    def reconstructions(self) -> Tensor:
        """The images with noise."""
        return self._needed("reconstructions", _near(0.05, seed=3))

    @property
    def latents(self) -> Tensor:
        """Random latents (24, 4, 4, 4)."""
        return self._needed("latents", normal(IMAGES, CHANNELS, GRID, GRID, seed=1))

    @property
    def train_latents(self) -> SyntheticLatents:
        """Random latents (48, 4, 4, 4)."""
        return self._needed("train_latents", SyntheticLatents())

    @property
    def pooled_features(self) -> Tensor:
        """(24, 16)."""
        return self.features(torch.arange(IMAGES)).mean(1)

    @property
    def sample_sets(self) -> Sequence[SampleSet]:
        """One set of each role."""
        return self._needed("samples", _sample_sets(self._labels))

    @property
    def extractor(self) -> SyntheticExtractor:
        """An extractor with six features."""
        return self._needed("extractor", SyntheticExtractor())

    @property
    def image_features(self) -> Tensor:
        return self.extractor(self.images)

    @property
    def training_reference(self) -> FeatureReference:
        """The test images with noise."""
        features = self.extractor(self._needed("training_images", _near(0.02, seed=4)))
        protocol = {"reference": "training images", "reference_count": IMAGES}
        return FeatureReference(features.mean(0), features.T.cov(), IMAGES, protocol)

    def inception(self, weights: str) -> SyntheticInception:
        """Features of three kinds, whatever the weights."""
        return self._needed("inception", SyntheticInception())

    def fdr6_features(self, name: str, weights: str) -> SyntheticFDr6Features:
        """Random projections of the pixels, other ones for each network."""
        images = self._needed("training_images", _near(0.02, seed=4))
        return SyntheticFDr6Features(list(VALIDATION).index(name), images)

    def features(self, indices: Tensor) -> Tensor:
        """Random tokens (B, 16, 16)."""
        tokens: Tensor = self._needed("latents", normal(IMAGES, GRID**2, WIDTH, seed=2))
        return tokens[indices]

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents, by one fixed layer."""
        weight = self._needed("latents", normal(CHANNELS, 3, PATCH, PATCH, seed=12))
        return F.conv_transpose2d(latents, weight, stride=PATCH).sigmoid()

    def perceptual(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean absolute difference (B,)."""
        return (a - b).abs().flatten(1).mean(1)

    def _needed(self, need: str, value: Any) -> Any:
        expect(need in self._needs, f"used {need}, but config.needs is {sorted(self._needs)}")
        return value


def _sample_sets(labels: Tensor) -> tuple[SampleSet, ...]:
    roles = (("main", 200, 50, 0.1), ("checkpoint", 100, 50, 0.2), ("few_steps", 200, 5, 0.3))
    return tuple(
        SampleSet(
            images=_near(noise, seed=number),
            labels=labels,
            generator_step=generator_step,
            steps=steps,
            role=role,
            protocol={
                "solver": "euler",
                "evaluations": steps,
                "guidance": 1.0,
                "generator_step": generator_step,
                "weights": "ema",
            },
        )
        for number, (role, generator_step, steps, noise) in enumerate(roles, start=20)
    )


def _near(noise: float, seed: int) -> Tensor:
    """The images, uint8, with noise."""
    images = synthetic_images(IMAGES, SIZE)
    return to_uint8(images + noise * normal(*images.shape, seed=seed))


def _masks() -> Tensor:
    axis = torch.arange(SIZE) - SIZE // 2
    disc = (axis[:, None] ** 2 + axis**2) < (SIZE // 3) ** 2
    return disc.long().expand(IMAGES, -1, -1).clone()
