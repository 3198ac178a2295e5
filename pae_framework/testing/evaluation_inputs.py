"""Material for evaluators, made up: small, and only what is asked for beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pae_framework.contracts import SampleSet
from pae_framework.data.pixels import to_uint8
from pae_framework.testing.expect import expect
from pae_framework.testing.synthetic import SyntheticExtractor, draw, synthetic_images

IMAGES, CLASSES, GRID, PATCH, WIDTH, CHANNELS = 24, 3, 4, 4, 16, 4
SIZE = GRID * PATCH


class SyntheticInputs:
    """A :class:`pae_framework.contracts.EvaluationInputs` of 24 made-up images in 3 classes.

    Args:
        needs: what may be asked for, from ``EVALUATION_NEEDS``; asking for anything else fails.
    """

    class_names: Sequence[str] = ("one", "two", "three")
    protocol: Mapping[str, Any] = {"test_data": "made up", "image_size": SIZE}
    seed = 0

    def __init__(self, needs: Iterable[str]):
        self._needs = frozenset(needs)
        self.images = to_uint8(synthetic_images(IMAGES, SIZE))
        self.indices = range(IMAGES)
        self.labels = torch.arange(IMAGES) % CLASSES

    @property
    def masks(self) -> Tensor | None:
        """Two segments: a disc and what is around it."""
        return self._asked("masks", _masks())

    @property
    def reconstructions(self) -> Tensor:
        """The images with a little noise."""
        return self._asked("reconstructions", _near(0.05, seed=3))

    @property
    def latents(self) -> Tensor:
        """Random ones (24, 4, 4, 4)."""
        return self._asked("latents", draw(IMAGES, CHANNELS, GRID, GRID, seed=1))

    @property
    def pooled_features(self) -> Tensor:
        """Means (24, 16) of the tokens."""
        return self.features(torch.arange(IMAGES)).mean(1)

    @property
    def sample_sets(self) -> Sequence[SampleSet]:
        """One set of each role."""
        return self._asked("samples", _sample_sets(self.labels))

    @property
    def extractor(self) -> SyntheticExtractor:
        """An extractor of six features."""
        return self._asked("extractor", SyntheticExtractor())

    @property
    def image_features(self) -> Tensor:
        """Its features of the images."""
        return self.extractor(self.images)

    def features(self, indices: Tensor) -> Tensor:
        """Random tokens (B, 16, 16)."""
        tokens: Tensor = self._asked("latents", draw(IMAGES, GRID**2, WIDTH, seed=2))
        return tokens[indices]

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents, by one fixed layer."""
        weight = self._asked("latents", draw(CHANNELS, 3, PATCH, PATCH, seed=12))
        return F.conv_transpose2d(latents, weight, stride=PATCH).sigmoid()

    @property
    def perceptual_name(self) -> str:
        """What :meth:`perceptual` is."""
        return "mean absolute difference"

    def perceptual(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean absolute difference (B,)."""
        return (a - b).abs().flatten(1).mean(1)

    def _asked(self, need: str, answer: Any) -> Any:
        expect(need in self._needs, f"asked for {need}, but config.needs is {sorted(self._needs)}")
        return answer


def _sample_sets(labels: Tensor) -> tuple[SampleSet, ...]:
    roles = (("main", 200, 50, 0.1), ("checkpoint", 100, 50, 0.2), ("few_steps", 200, 5, 0.3))
    return tuple(
        SampleSet(
            images=_near(noise, seed=number),
            labels=labels,
            generator_step=generator_step,
            steps=steps,
            role=role,
            protocol={"solver": "euler", "evaluations": steps, "guidance": 1.0},
        )
        for number, (role, generator_step, steps, noise) in enumerate(roles, start=20)
    )


def _near(noise: float, seed: int) -> Tensor:
    """The images, uint8, with noise."""
    images = synthetic_images(IMAGES, SIZE)
    return to_uint8(images + noise * draw(*images.shape, seed=seed))


def _masks() -> Tensor:
    axis = torch.arange(SIZE) - SIZE // 2
    disc = (axis[:, None] ** 2 + axis**2) < (SIZE // 3) ** 2
    return disc.long().expand(IMAGES, -1, -1).clone()
