"""The inputs of evaluators, computed from a run on first use and cached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from pae_framework.contracts import Encoder, EvaluationInputs, Extractor, SampleSet
from pae_framework.data.images import random_subset, read_images, read_masks
from pae_framework.data.pixels import to_float, to_uint8
from pae_framework.execution.artifacts import frozen_encoder, trained_tokenizer
from pae_framework.execution.context import StageContext
from pae_framework.sampling.sample_set import read_sets
from pae_framework.tokenizer.losses.reconstruction import build_distance
from pae_framework.tokenizer.model import Tokenizer

BATCH = 250


@dataclass(frozen=True)
class FeatureExtractor:
    """Pooled features of a frozen network, for Frechet distances."""

    name: str
    network: Encoder
    device: torch.device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features (M, D) float64 on the CPU of uint8 images (M, 3, S, S)."""
        features = []
        for batch in images.split(BATCH):
            pixels = self.network.normalize(to_float(batch.to(self.device)))  # (B, 3, S, S)
            features.append(self.network(pixels).pooled.double().cpu())  # (B, D)
        return torch.cat(features)


class RunInputs(EvaluationInputs):
    """The inputs of one run.

    Args:
        context: of the stage that evaluates.
        limit: number of test images, chosen at random with the recipe's seed; None: the recipe's
            ``data.test_images``.
        test: images (M, 3, S, S) uint8 and labels (M,), instead of those of the test source.
    """

    def __init__(
        self,
        context: StageContext,
        limit: int | None = None,
        test: tuple[Tensor, Tensor] | None = None,
    ):
        self._context = context
        if test is not None:
            self._test = test
        self._limit = limit or context.recipe.data.test_images

    @property
    def seed(self) -> int:
        return self._context.recipe.seed

    @property
    def class_names(self) -> Sequence[str]:
        return self._context.test_source.class_names

    @cached_property
    def protocol(self) -> Mapping[str, Any]:
        recipe, available = self._context.recipe, len(self._context.test_source)
        test, is_subset = recipe.data.test, len(self.indices) < available
        selection = f"of {available}, drawn at random, seed {self.seed}" if is_subset else "all"
        protocol: dict[str, Any] = {
            "test_data": {"use": test.use, **test.config.model_dump(mode="json")},
            "test_images": len(self.indices),
            "test_images_chosen": selection,
            "image_size": recipe.data.image_size,
            "uint8": "trunc(255 * clamp(x, 0, 1))",
            "evaluation_seed": recipe.seed,
            "tokenizer_seed": self._context.seed(recipe.tokenizer.train),
            "stages": {
                name: stage.fingerprint
                for name, stage in self._context.plan.items()
                if name in self._context.planned.inputs
            },
        }
        if recipe.generator:
            protocol["generator_seed"] = self._context.seed(recipe.generator.train)
        return protocol

    @cached_property
    def indices(self) -> Sequence[int]:
        return random_subset(len(self._context.test_source), self._limit, self.seed)

    @cached_property
    def _test(self) -> tuple[Tensor, Tensor]:
        return read_images(self._context.test_source, self.indices)

    @property
    def images(self) -> Tensor:
        return self._test[0]

    @property
    def labels(self) -> Tensor:
        return self._test[1]

    @cached_property
    def masks(self) -> Tensor | None:
        return read_masks(self._context.test_source, self.indices)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        return trained_tokenizer(self._context)

    @cached_property
    def latents(self) -> Tensor:
        return self._batched(self.images, lambda x: self.tokenizer.encode(x).latents.float())

    @cached_property
    def pooled_features(self) -> Tensor:
        return self._batched(self.images, lambda x: self._tokens(x).mean(1))

    def features(self, indices: Tensor) -> Tensor:
        return self._batched(self.images[indices], self._tokens)

    @cached_property
    def reconstructions(self) -> Tensor:
        with torch.no_grad():
            batches = [to_uint8(self.decode(z)).cpu() for z in self.latents.split(BATCH)]
        return torch.cat(batches)

    @cached_property
    def sample_sets(self) -> Sequence[SampleSet]:
        return read_sets(partial(self._context.file, "sample"))

    @cached_property
    def extractor(self) -> Extractor:
        component = self._context.recipe.extractor
        assert component is not None
        network = frozen_encoder(self._context, "extractor")
        return FeatureExtractor(component.use, network, self._context.device)

    @cached_property
    def image_features(self) -> Tensor:
        return self.extractor(self.images)

    @property
    def perceptual_name(self) -> str:
        settings = self._context.recipe.tokenizer.reconstruction
        return str(settings.terms[settings.perceptual_metric])

    @cached_property
    def _distance(self) -> Callable[[Tensor, Tensor], Tensor]:
        settings = self._context.recipe.tokenizer.reconstruction
        distance = build_distance(settings.perceptual_metric, settings, self.tokenizer.encoder)
        return distance.to(self._context.device) if isinstance(distance, nn.Module) else distance

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        return self.tokenizer.decode(latents.to(self._context.device))

    @torch.no_grad()
    def perceptual(self, a: Tensor, b: Tensor) -> Tensor:
        device = self._context.device
        return self._distance(a.to(device), b.to(device))

    def _tokens(self, x: Tensor) -> Tensor:
        return self.tokenizer.features(x).tokens.float()

    @torch.no_grad()
    def _batched(self, images: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply a function to images (M, 3, S, S) uint8 as floats in [0, 1], batch by batch."""
        device = self._context.device
        batches = [function(to_float(b.to(device))).cpu() for b in images.split(BATCH)]
        return torch.cat(batches)
