"""The inputs of evaluators, computed from a run on first use and cached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from pae_framework.contracts import (
    Encoder,
    EvaluationInputs,
    Extractor,
    InceptionNetwork,
    LatentRows,
    SampleSet,
)
from pae_framework.data.images import random_subset, read_images, read_masks
from pae_framework.data.pixels import to_float, to_uint8
from pae_framework.evaluation.build_inception import inception_network
from pae_framework.evaluation.shared_batches import SharedBatches
from pae_framework.execution.artifacts import frozen_encoder, trained_tokenizer
from pae_framework.execution.context import StageContext
from pae_framework.execution.run_latents import training_latents
from pae_framework.sampling.sample_set import read_sets
from pae_framework.tokenizer.losses.reconstruction import build_distance
from pae_framework.tokenizer.model import Tokenizer
from pae_framework.world import ONE_PROCESS, World

INCEPTION_BATCH = 50
"""Images that Inception processes at once: on the CPU, 6 MB each."""


@dataclass(frozen=True)
class FeatureExtractor:
    """Pooled features of a frozen network, for Frechet distances."""

    name: str
    features: Callable[[Tensor], Tensor]

    def __call__(self, images: Tensor) -> Tensor:
        """Features (M, D) float64 on the CPU of uint8 images (M, 3, S, S)."""
        return self.features(images)


@dataclass(frozen=True)
class SharedInception:
    """The Inception network, applied by all processes.

    Args:
        network: that of the main process.
        features: applies those of all processes.
    """

    network: InceptionNetwork
    features: Callable[[Tensor], tuple[Tensor, ...]]

    @property
    def sha256(self) -> str:
        """SHA-256 of the file of the weights."""
        return self.network.sha256

    @property
    def widths(self) -> tuple[int, int]:
        """Widths of the features."""
        return self.network.widths

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled and spatial features of uint8 images (M, 3, H, W)."""
        pool, spatial = self.features(images)
        return pool, spatial

    def logits(self, pool: Tensor) -> Tensor:
        """Logits of pooled features."""
        return self.network.logits(pool)


class RunInputs(EvaluationInputs):
    """The inputs of one run, for its main process.

    Networks are applied to batches of images by all processes; the others call :meth:`serve`.

    Args:
        context: of the stage that evaluates.
        limit: number of test images, chosen at random with the recipe's seed; None: the recipe's
            ``data.test_images``.
        test: images (M, 3, S, S) uint8 and labels (M,), instead of those of the test source.
        world: the processes that take part.
    """

    def __init__(
        self,
        context: StageContext,
        limit: int | None = None,
        test: tuple[Tensor, Tensor] | None = None,
        world: World = ONE_PROCESS,
    ):
        self._context = context
        if test is not None:
            self._test = test
        self._limit = limit or context.recipe.data.test_images
        self._inceptions: dict[str, InceptionNetwork] = {}
        self._shared = SharedBatches(
            world,
            {
                "read": self._read,
                "latents": self._encode,
                "pooled": lambda images: (self._tokens(images).mean(1),),
                "tokens": lambda images: (self._tokens(images),),
                "decoded": lambda latents: (to_uint8(self.decode(latents)),),
                "extracted": self._extract,
                "inception": self._extract_inception,
            },
        )

    def serve(self) -> None:
        """In a process other than the main one, take part until that one calls :meth:`end`."""
        self._shared.serve()

    def end(self) -> None:
        """Let the other processes go."""
        self._shared.end()

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
        images, labels = self._shared.map("read", torch.tensor(self.indices))
        return images, labels

    @property
    def images(self) -> Tensor:
        return self._test[0]

    @property
    def labels(self) -> Tensor:
        return self._test[1]

    @cached_property
    def masks(self) -> Tensor | None:
        return read_masks(self._context.test_source, self.indices)

    def masks_of(self, indices: Tensor) -> Tensor | None:
        chosen = [self.indices[index] for index in indices.tolist()]
        return read_masks(self._context.test_source, chosen)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        return trained_tokenizer(self._context)

    @cached_property
    def latents(self) -> Tensor:
        return self._map("latents", self.images)

    @cached_property
    def train_latents(self) -> LatentRows:
        return training_latents(self._context)

    @property
    def device(self) -> torch.device:
        return self._context.device

    @cached_property
    def pooled_features(self) -> Tensor:
        return self._map("pooled", self.images)

    def features(self, indices: Tensor) -> Tensor:
        return self._map("tokens", self.images[indices])

    @cached_property
    def reconstructions(self) -> Tensor:
        return self._map("decoded", self.latents)

    @cached_property
    def sample_sets(self) -> Sequence[SampleSet]:
        return read_sets(partial(self._context.file, "sample"))

    @cached_property
    def extractor(self) -> Extractor:
        component = self._context.recipe.extractor
        assert component is not None
        return FeatureExtractor(component.use, partial(self._map, "extracted"))

    @cached_property
    def image_features(self) -> Tensor:
        return self.extractor(self.images)

    def inception(self, weights: str) -> SharedInception:
        features = partial(self._shared.map, "inception")
        network = self._inception(weights)
        return SharedInception(network, lambda images: features(images, weights))

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

    def _map(self, function: str, rows: Tensor) -> Tensor:
        (results,) = self._shared.map(function, rows)
        return results

    # --- functions of batches, in each process ----------------------------------------------------

    def _read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return read_images(self._context.test_source, indices)

    def _encode(self, images: Tensor) -> tuple[Tensor]:
        return (self.tokenizer.encode(self._pixels(images)).latents.float(),)

    def _tokens(self, images: Tensor) -> Tensor:
        return self.tokenizer.features(self._pixels(images)).tokens.float()

    def _extract(self, images: Tensor) -> tuple[Tensor]:
        pixels = self._extractor_network.normalize(self._pixels(images))  # (B, 3, S, S)
        return (self._extractor_network(pixels).pooled.double(),)

    def _extract_inception(self, images: Tensor, weights: str) -> tuple[Tensor, ...]:
        network = self._inception(weights)
        parts = [network(some) for some in images.split(INCEPTION_BATCH)]
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    def _inception(self, weights: str) -> InceptionNetwork:
        if weights not in self._inceptions:
            self._inceptions[weights] = inception_network(weights, self._context.device)
        return self._inceptions[weights]

    def _pixels(self, images: Tensor) -> Tensor:
        """Floats in [0, 1], on the device."""
        return to_float(images.to(self._context.device))

    @cached_property
    def _extractor_network(self) -> Encoder:
        return frozen_encoder(self._context, "extractor")
