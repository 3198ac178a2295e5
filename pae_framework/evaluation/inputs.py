"""The inputs of evaluators, computed from a run on first use and cached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pae_framework.contracts import (
    Encoder,
    EvaluationInputs,
    Extractor,
    FeatureReference,
    InceptionNetwork,
    LatentRows,
    SampleSet,
    Tokenizer,
)
from pae_framework.data.images import random_subset, read_masks
from pae_framework.data.pixels import resize, to_float_on, to_uint8
from pae_framework.errors import PluginError, UsageError
from pae_framework.evaluation.build_inception import fdr6_network, inception_network
from pae_framework.evaluation.feature_cache import CachedExtraction, network_folder
from pae_framework.evaluation.ordered_reads import OrderedReads
from pae_framework.evaluation.parts import (
    encoder_identity,
    identity_of_test_images,
    identity_of_training_images,
    stage_identity,
)
from pae_framework.evaluation.shared_batches import SharedBatches
from pae_framework.evaluation.streamed_statistics import streamed_statistics
from pae_framework.execution.artifacts import frozen_encoder, trained_tokenizer
from pae_framework.execution.context import StageContext
from pae_framework.execution.run_latents import training_latents
from pae_framework.metrics.fdr6 import INCEPTION
from pae_framework.recipe.components import ExtractorComponent
from pae_framework.recipe.models import Recipe
from pae_framework.sampling.sample_set import read_sets
from pae_framework.system.files import json_digest
from pae_framework.tensor_files import weights_digest
from pae_framework.tokenizer.losses.lpips import build_lpips
from pae_framework.tokenizer.losses.perceptual import PerceptualDistance
from pae_framework.tokenizer.model import ComposedTokenizer
from pae_framework.tokenizer.tokenizer_settings import LpipsNetwork, PerceptualSettings
from pae_framework.world import ONE_PROCESS, World

if TYPE_CHECKING:
    from pae_framework.metrics.fdr6_networks import FDr6Features

INCEPTION_BATCH = 50
"""Images that Inception processes at once: on the CPU, 6 MB each."""


@dataclass(frozen=True)
class FeatureExtractor:
    """Pooled features of a frozen network, for Frechet distances."""

    component: ExtractorComponent
    network: Callable[[], Encoder]
    features: Callable[[Tensor], Tensor]

    @property
    def name(self) -> str:
        """Name of the component, after ``random_`` if its weights are random."""
        return f"{'random_' * self.component.config.untrained}{self.component.use}"

    def label(self, label: str) -> str:
        """What a Frechet distance in its features is called."""
        return self.network().distance_label(label, self.component.use)

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


@dataclass(frozen=True)
class SharedFDr6Features:
    """Features by a network of FDr6, applied by all processes.

    Args:
        digest: of its weights.
        features: pooled features (M, D) of uint8 images.
        training_reference: the training images in these features.
    """

    digest: str
    features: Callable[[Tensor], Tensor]
    training_reference: Callable[[], FeatureReference]

    @property
    def reference(self) -> FeatureReference:
        """All training images, not mirrored."""
        return self.training_reference()

    def __call__(self, images: Tensor) -> Tensor:
        """Features (M, D) of uint8 images (M, 3, S, S)."""
        return self.features(images)


class RunInputs(EvaluationInputs):
    """The inputs of one run, for its main process.

    Networks are applied to batches of images by all processes; the others call :meth:`serve`.

    Args:
        context: of the stage that evaluates.
        limit: number of test images, chosen at random with the recipe's seed; None: the recipe's
            ``data.test_images``.
        test: images (M, 3, S, S) uint8 and labels (M,), instead of those of the test source.
        world: the processes that take part.
        store: folder of the run's stages, in which features are kept; None: they are not kept.
    """

    def __init__(
        self,
        context: StageContext,
        limit: int | None = None,
        test: tuple[Tensor, Tensor] | None = None,
        world: World = ONE_PROCESS,
        store: Path | None = None,
    ):
        self._context, self._store = context, store
        if test is not None:
            self._test = test
        self._limit = limit or context.recipe.data.test_images
        self._inceptions: dict[str, InceptionNetwork] = {}
        self._fdr6_networks: dict[tuple[str, str], FDr6Features] = {}
        self._parts: dict[str, Mapping[str, Any]] = {}
        self._read_test = OrderedReads(
            lambda: context.test_source, lambda: self.indices, world.size, self._workers
        )
        self._read_train = OrderedReads(
            lambda: context.train_source,
            lambda: range(len(context.train_source)),
            world.size,
            self._workers,
        )
        self._shared = SharedBatches(
            world,
            {
                "read": self._read_test,
                "latents": self._encode,
                "pooled": lambda images: (self._tokens(images).mean(1),),
                "tokens": lambda images: (self._tokens(images),),
                "decoded": lambda latents: (to_uint8(self.decode(latents)),),
                "extracted": self._extract,
                "inception": self._extract_inception,
                "fdr6": self._extract_fdr6,
                "training": self._extract_training,
                "fdr6_training": self._extract_fdr6_training,
            },
            lambda: context.directory,
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

    @property
    def protocol(self) -> Mapping[str, Any]:
        return {**self.protocol_of("test_images"), "evaluation_seed": self.seed}

    def protocol_of(self, part: str) -> Mapping[str, Any]:
        if part not in self._parts:
            self._parts[part] = self._identity(part)
        return self._parts[part]

    def _identity(self, part: str) -> Mapping[str, Any]:
        context = self._context
        match part:
            case "test_images":
                return identity_of_test_images(context, len(self.indices))
            case "training_images":
                return identity_of_training_images(context)
            case "encoder":
                component = context.recipe.tokenizer_section.encoder
                return encoder_identity(context, part, component, self._composed.encoder)
            case "extractor":
                extractor = context.recipe.extractor
                assert extractor is not None
                network = encoder_identity(context, part, extractor, self._extractor_network)
                found = {**network, part: self.extractor.name, "pooling": extractor.pooling}
                resize = extractor.resize
                return found | (
                    {} if resize is None else {"resize": resize.model_dump(mode="json")}
                )
            case "perceptual":
                named: dict[str, Any] = {part: self.perceptual_name}
                if isinstance(self._perceptual_settings, LpipsNetwork):
                    return {**named, f"{part}_digest": weights_digest(self._distance)}
                return {**named, **self.protocol_of("encoder")}
            case "tokenizer" | "generator":
                return stage_identity(context, part)
        raise ValueError(f"{part!r} is no part of an evaluation")

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
    def unavailable(self) -> Mapping[str, str]:
        tokenizer = self._context.recipe.tokenizer
        features = _lacks_frozen_features(self._context.recipe)
        hint = "add `lpips: {weights: default}` to the map of the tokenizer"
        perceptual = None if tokenizer.perceptual else hint
        if features and isinstance(tokenizer.perceptual, PerceptualSettings):
            perceptual = f"tokenizer.reconstruction.lpips has weight 0, and {features}"
        reasons = {
            "features": features,
            "perceptual": perceptual,
            "encode": None if tokenizer.encodes else "the tokenizer does not encode",
            "decode": None if tokenizer.decodes else "the tokenizer does not decode",
        }
        return {name: reason for name, reason in reasons.items() if reason is not None}

    def _require(self, name: str) -> None:
        if (reason := self.unavailable.get(name)) is not None:
            raise UsageError(f"`{name}` is not available: {reason}")

    @property
    def _composed(self) -> ComposedTokenizer:
        self._require("features")
        assert isinstance(self.tokenizer, ComposedTokenizer)
        return self.tokenizer

    @cached_property
    def latents(self) -> Tensor:
        self._require("encode")
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
        extraction = CachedExtraction(self._shared, "extracted", (), self._extractor_folder)
        return FeatureExtractor(
            component, lambda: self._extractor_network, lambda images: extraction(images)[0]
        )

    @cached_property
    def _extractor_folder(self) -> Path | None:
        """Folder of its features; None if they are not kept."""
        component = self._context.recipe.extractor
        if self._store is None or component is None:
            return None
        network = {
            **component.model_dump(mode="json", exclude={"config", "train", "weights"}),
            "pooling": component.pooling,
            "version": component.config.version,
            "config": component.config.model_dump(mode="json"),
            "weights": weights_digest(self._extractor_network),
        }
        return self._folder_of(network)

    @cached_property
    def image_features(self) -> Tensor:
        return self.extractor(self.images)

    @cached_property
    def training_reference(self) -> FeatureReference:
        return self._training_reference(self._extractor_folder, "training")

    def _training_reference(
        self, folder: Path | None, function: str, *arguments: str
    ) -> FeatureReference:
        """All training images, in the features that a function extracts by their indices."""
        count = len(self._context.train_source)
        file = None if folder is None else folder / self._training_file(count)
        statistics = streamed_statistics(self._shared, function, count, file, *arguments)
        protocol = {
            **identity_of_training_images(self._context),
            "reference": "training images",
            "reference_count": count,
        }
        return FeatureReference(statistics.mean, statistics.covariance, count, protocol)

    def _training_file(self, count: int) -> str:
        """Name of the file with the statistics of the training images."""
        parts = self._context.planned.hashed["parts"]
        if "train_images" not in parts:
            raise PluginError(
                "an evaluator compares with the training images, but its config's `needs` lacks "
                "training_images"
            )
        images = json_digest([parts["train_images"], parts["image_size"], count])
        return f"training-{images}.safetensors"

    def inception(self, weights: str) -> SharedInception:
        network, folder = self._inception(weights), self._inception_folder(weights)
        extraction = CachedExtraction(self._shared, "inception", (weights,), folder)
        return SharedInception(network, extraction)

    def _inception_folder(self, weights: str) -> Path | None:
        identity = {"use": "inception", "weights": self._inception(weights).sha256}
        return self._folder_of(identity)

    def _folder_of(self, network: Mapping[str, Any]) -> Path | None:
        """Folder of the features by a network; None if they are not kept."""
        if self._store is None:
            return None
        return network_folder(self._store, network, self._context.device)

    def fdr6_features(self, name: str, weights: str) -> SharedFDr6Features:
        if name == INCEPTION:
            inception, folder = self.inception(weights), self._inception_folder(weights)
            digest, features = inception.sha256, lambda images: inception(images)[0]
        else:
            digest = self._fdr6_network(name, weights).digest
            identity = {"use": "fdr6", "network": name, "weights": digest}
            folder = self._folder_of({**identity, "timm": version("timm")})
            extraction = CachedExtraction(self._shared, "fdr6", (name, weights), folder)
            features = lambda images: extraction(images)[0]  # noqa: E731
        reference = partial(self._training_reference, folder, "fdr6_training", name, weights)
        return SharedFDr6Features(digest, features, reference)

    @property
    def perceptual_name(self) -> str:
        return str(self._perceptual_settings)

    @property
    def _perceptual_settings(self) -> PerceptualSettings | LpipsNetwork:
        self._require("perceptual")
        settings = self._context.recipe.tokenizer.perceptual
        assert settings is not None
        return settings

    @cached_property
    def _distance(self) -> nn.Module:
        settings = self._perceptual_settings
        if isinstance(settings, LpipsNetwork):
            return build_lpips(settings).to(self._context.device)
        distance = PerceptualDistance(self._composed.encoder, settings.layers)
        return distance.to(self._context.device)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        self._require("decode")
        return self.tokenizer.decode(latents.to(self._context.device))

    @torch.no_grad()
    def perceptual(self, a: Tensor, b: Tensor) -> Tensor:
        device = self._context.device
        distance: Tensor = self._distance(a.to(device), b.to(device))
        return distance

    def _map(self, function: str, rows: Tensor) -> Tensor:
        (results,) = self._shared.map(function, rows)
        return results

    # --- functions of batches, in each process ----------------------------------------------------

    def _workers(self) -> int:
        """Processes that read images ahead, as in the training of the tokenizer or its encoding."""
        recipe = self._context.recipe
        return recipe.latents.workers if recipe.composed is None else recipe.composed.train.workers

    def _encode(self, images: Tensor) -> tuple[Tensor]:
        return (self.tokenizer.encode(self._pixels(images)).latents.float(),)

    def _tokens(self, images: Tensor) -> Tensor:
        return self._composed.features(self._pixels(images)).tokens.float()

    def _extract(self, images: Tensor) -> tuple[Tensor]:
        component, network = self._context.recipe.extractor, self._extractor_network
        assert component is not None
        pixels = self._pixels(images)
        if component.resize is not None:
            pixels = resize(pixels, component.resize)
        return (network.pool(network.normalize(pixels), component.pooling).double(),)

    def _extract_training(self, indices: Tensor) -> tuple[Tensor]:
        return self._extract(self._read_train(indices)[0])

    def _extract_inception(self, images: Tensor, weights: str) -> tuple[Tensor, ...]:
        network = self._inception(weights)
        parts = [network(some) for some in images.split(INCEPTION_BATCH)]
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    def _extract_fdr6(self, images: Tensor, name: str, weights: str) -> tuple[Tensor]:
        if name == INCEPTION:
            return (self._extract_inception(images, weights)[0],)
        return (self._fdr6_network(name, weights)(images),)

    def _extract_fdr6_training(self, indices: Tensor, name: str, weights: str) -> tuple[Tensor]:
        return self._extract_fdr6(self._read_train(indices)[0], name, weights)

    def _fdr6_network(self, name: str, weights: str) -> FDr6Features:
        """The network of that name; only the last one is kept."""
        if (name, weights) not in self._fdr6_networks:
            network = fdr6_network(name, weights, self._context.device)
            self._fdr6_networks = {(name, weights): network}
        return self._fdr6_networks[name, weights]

    def _inception(self, weights: str) -> InceptionNetwork:
        if weights not in self._inceptions:
            self._inceptions[weights] = inception_network(weights, self._context.device)
        return self._inceptions[weights]

    def _pixels(self, images: Tensor) -> Tensor:
        """Floats in [0, 1], on the device."""
        return to_float_on(images, self._context.device)

    @cached_property
    def _extractor_network(self) -> Encoder:
        return frozen_encoder(self._context, "extractor")


def _lacks_frozen_features(recipe: Recipe) -> str | None:
    """Why the encoder's features are no reference for latents; None if they are."""
    if recipe.composed is None:
        return "the tokenizer has no encoder tokens"
    if recipe.composed.train_encoder:
        return "the encoder is trained with the tokenizer"
    return None
