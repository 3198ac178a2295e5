"""What evaluators are given: each part computed once, when the first of them asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from pae_framework.contracts import Extractor, SampleSet
from pae_framework.data.images import all_images, all_masks, subset
from pae_framework.data.pixels import to_float, to_uint8
from pae_framework.execution.artifacts import FeatureExtractor, frozen_encoder, trained_tokenizer
from pae_framework.execution.context import StageContext
from pae_framework.stages.sample import read_sets
from pae_framework.tokenizer.losses.reconstruction import build_distance
from pae_framework.tokenizer.model import Tokenizer

BATCH = 250


class RunInputs:
    """The material of one run: see :class:`pae_framework.contracts.EvaluationInputs`.

    Args:
        context: the stage that asks.
        limit: how many test images; None: as many as the recipe judges. Fewer than there are, they
            are drawn at random by the recipe's seed.
    """

    def __init__(self, context: StageContext, limit: int | None = None):
        self._context = context
        self._limit = limit or context.recipe.data.test_images

    @property
    def seed(self) -> int:
        """The recipe's seed."""
        return self._context.recipe.seed

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes."""
        return self._context.test_source.class_names

    @cached_property
    def protocol(self) -> Mapping[str, Any]:
        """What all figures of the run have in common."""
        recipe = self._context.recipe
        test = recipe.data.test
        protocol: dict[str, Any] = {
            "test_data": {"use": test.use, **test.config.model_dump(mode="json")},
            "test_images": len(self.indices),
            "test_images_chosen": self._chosen,
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
        """Where the test images stand in their source."""
        return subset(len(self._context.test_source), self._limit, self.seed)

    @property
    def _chosen(self) -> str:
        length = len(self._context.test_source)
        if len(self.indices) == length:
            return "all"
        return f"of {length}, drawn at random, seed {self.seed}"

    @cached_property
    def _test(self) -> tuple[Tensor, Tensor]:
        return all_images(self._context.test_source, self.indices)

    @property
    def images(self) -> Tensor:
        """Test images (M, 3, S, S) uint8."""
        return self._test[0]

    @property
    def labels(self) -> Tensor:
        """Their labels (M,)."""
        return self._test[1]

    @cached_property
    def masks(self) -> Tensor | None:
        """Their masks (M, S, S), where the source has them."""
        return all_masks(self._context.test_source, self.indices)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        return trained_tokenizer(self._context)

    @cached_property
    def latents(self) -> Tensor:
        """Latents (M, C, h, w) of the test images, on the CPU."""
        return self._batched(self.images, lambda x: self.tokenizer.encode(x).latents.float())

    @cached_property
    def pooled_features(self) -> Tensor:
        """Mean token (M, D) of the frozen encoder for each test image, on the CPU."""
        return self._batched(self.images, lambda x: self._tokens(x).mean(1))

    def features(self, indices: Tensor) -> Tensor:
        """Tokens (B, N, D) of the frozen encoder for the test images chosen (B,), on the CPU."""
        return self._batched(self.images[indices], self._tokens)

    @cached_property
    def reconstructions(self) -> Tensor:
        """Test images through the tokenizer and back, (M, 3, S, S) uint8."""
        with torch.no_grad():
            parts = [to_uint8(self.decode(chunk)).cpu() for chunk in self.latents.split(BATCH)]
        return torch.cat(parts)

    @cached_property
    def sample_sets(self) -> Sequence[SampleSet]:
        """What the sample stage drew."""
        return read_sets(self._context.require("sample"))

    @cached_property
    def extractor(self) -> Extractor:
        """The extractor the run trained, with what its own stage recorded."""
        component = self._context.recipe.extractor
        assert component is not None
        network = frozen_encoder(self._context, "extractor")
        return FeatureExtractor(component.use, network, self._context.device)

    @cached_property
    def image_features(self) -> Tensor:
        """Features (M, F) float64 of the test images by the extractor, on the CPU."""
        return self.extractor(self.images)

    @property
    def perceptual_name(self) -> str:
        """What :meth:`perceptual` is: LPIPS where the tokenizer was trained by it."""
        settings = self._context.recipe.tokenizer.reconstruction
        return str(settings.terms[settings.judge])

    @cached_property
    def _distance(self) -> Callable[[Tensor, Tensor], Tensor]:
        settings = self._context.recipe.tokenizer.reconstruction
        distance = build_distance(settings.judge, settings, self.tokenizer.encoder)
        return distance.to(self._context.device) if isinstance(distance, nn.Module) else distance

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images in about [0, 1] of latents (B, C, h, w)."""
        return self.tokenizer.decode(latents.to(self._context.device))

    @torch.no_grad()
    def perceptual(self, a: Tensor, b: Tensor) -> Tensor:
        """Perceptual distance (B,): see :attr:`perceptual_name`."""
        device = self._context.device
        return self._distance(a.to(device), b.to(device))

    def _tokens(self, x: Tensor) -> Tensor:
        return self.tokenizer.features(x).tokens.float()

    @torch.no_grad()
    def _batched(self, images: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        parts = []
        for chunk in images.split(BATCH):
            parts.append(function(to_float(chunk.to(self._context.device))).cpu())
        return torch.cat(parts)
