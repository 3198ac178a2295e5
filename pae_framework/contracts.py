"""The base classes of components, one per kind, and the types they exchange.

Conventions: images are square RGB ``(B, 3, S, S)``, float32 in [0, 1] unless uint8 is stated.
Tokens are ``(B, N, D)`` with N = grid * grid in row-major order. Latents are ``(B, C, h, w)``. Time
t is 0 at noise and 1 at data. The first argument of a component's constructor is its config.

Random generators are on the CPU, so that every device sees the same numbers, unless the recipe says
``noise: device``. Draw with ``device=generator.device``, then move the numbers.

Several processes may share a batch, and each then sees some of its images. So loss terms are means
over images, and numbers of each image are drawn with :func:`pae_framework.seeding.randn` or
:func:`~pae_framework.seeding.rand`, which give an image the same numbers in any process.

Legend: B batch, N tokens, D token width, C latent channels, h = w grid side, S image side in px.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from pae_framework.config import (
    BottleneckConfig,
    DataSourceConfig,
    DecoderConfig,
    DiscriminatorConfig,
    EncoderConfig,
    EvaluatorConfig,
    GeneratorConfig,
    LatentShape,
    ModulatorConfig,
    RegularizerConfig,
    TrackerConfig,
)
from pae_framework.constants import channels
from pae_framework.errors import CheckpointError

LossTerms = dict[str, Tensor]
"""Weighted loss terms by name, scalars; ``loss`` is the term to minimize."""

Batch = tuple[Tensor, ...]
"""A training batch: tensors with one row per image."""


def cached_tokens(batch: Batch) -> Tensor | None:
    """The frozen encoder's tokens (B, N, D), if the batch has them after images and labels."""
    return batch[2] if len(batch) > 2 else None


# --- data sources ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabeledImage:
    """An ``image`` (3, S, S) uint8 and its ``label``, from 0 to the number of classes - 1."""

    image: Tensor
    label: int


class DataSource(ABC):
    """A fixed, ordered set of labeled images of one size; image i is the same at every read.

    Built as ``Source(config, image_size)``.
    """

    def __init__(self, config: DataSourceConfig, image_size: int):
        self.config = config
        self.image_size = image_size

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """Names of the classes; a label is an index into them."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def __getitem__(self, index: int) -> LabeledImage:
        """Read one image, resized to ``image_size``.

        Raises:
            DataError: the image cannot be read; names the file.
        """

    def labels(self) -> Sequence[int] | None:
        """The label of each image, if known without reading the images; else None.

        They are needed to refuse a class without images before anything is trained.
        """
        return None

    def mask(self, index: int) -> Tensor | None:
        """Segmentation mask (S, S) int64 of the image; None if the source has no masks."""
        return None


# --- encoders -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Features:
    """Output of an encoder: ``tokens`` (B, N, D) without class or register tokens, after a final
    norm without affine; ``pooled`` (B, D), by default the mean of the tokens."""

    tokens: Tensor
    pooled: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.pooled is None:
            object.__setattr__(self, "pooled", self.tokens.mean(1))


class Encoder(nn.Module, ABC):
    """Images to features. The engine keeps it in eval mode and gives it float32 images. It freezes
    it, unless the tokenizer's training trains it.

    :meth:`normalize` resizes and standardizes images in [0, 1] to the input of :meth:`forward`.
    Built as ``Encoder(config, image_size)``. Grid, width and heads are those of the config, and the
    patch follows from the grid, unless the constructor of a subclass sets them.
    """

    grid: int
    """Tokens per side."""
    width: int
    """Token width D."""
    heads: int
    """Attention heads; modulator and projector have as many. By default 1 if the config states
    none."""
    patch: int
    """Side in px of the patch that becomes one token, in the encoder's input."""
    mean: tuple[float, float, float]
    """Channel means that :meth:`normalize` subtracts."""
    std: tuple[float, float, float]
    """Channel deviations that :meth:`normalize` divides by."""

    def __init__(self, config: EncoderConfig, image_size: int):
        super().__init__()
        self.config = config
        self.image_size = image_size
        self.grid, self.width = config.token_grid(image_size), config.token_width()
        self.heads = config.token_heads() or 1
        self.patch = image_size // max(1, self.grid)

    def normalize(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, S, S) in [0, 1] into the encoder's input (B, 3, S', S')."""
        return (images - channels(self.mean, images)) / channels(self.std, images)

    def denormalize(self, pixels: Tensor) -> Tensor:
        """Undo the standardization, but not the resize: (B, 3, H, W) to about [0, 1]."""
        return pixels * channels(self.std, pixels) + channels(self.mean, pixels)

    @abstractmethod
    def forward(self, pixels: Tensor) -> Features:
        """Features of normalized pixels (B, 3, S', S')."""

    def pool(self, pixels: Tensor, pooling: str) -> Tensor:
        """Features (B, F) of normalized pixels, pooled in one of the config's ``poolings``."""
        features = self.forward(pixels)
        return features.tokens.mean(dim=1) if pooling == "mean" else features.pooled

    def distance_label(self, label: str, name: str) -> str:
        """What a Frechet distance in its features is called in tables.

        Args:
            label: such as ``gFD`` or ``rFD``.
            name: the extractor's.
        """
        return label if self.config.trainable else f"{label} ({name})"

    def feature_maps(self, pixels: Tensor) -> Iterable[Tensor]:
        """Features (B, n, d) after each block, for perceptual distances; by default the tokens.

        Gradients flow to ``pixels``. Prefer a generator function, so that callers that need only
        the first blocks skip the others.
        """
        return [self.forward(pixels).tokens]

    def last_layer(self) -> nn.Parameter | None:
        """The weight of the layer that ends in the tokens, for adaptive weights of regularizers.

        It is used if the tokenizer's training trains the encoder and there is no projector. None,
        the default, if the config's ``has_last_layer`` is false.
        """
        return None

    def load_pretrained(self) -> None:
        """Load the pretrained weights that the config names; until then weights are random.

        The engine calls it once after construction, also before the encoder's own training, unless
        a stage of the run or an imported tokenizer provides the weights. The default does nothing.

        Raises:
            DataError: the weights are missing and cannot be downloaded; says what to do.
            CheckpointError: they belong to another network; lists the differences.
        """

    def from_released(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert the encoder's weights in a released PAE tokenizer to this encoder's state dict.

        The names of ``tensors`` are those of the file, without the leading ``encoder.``.

        Raises:
            CheckpointError: names are missing or unknown; lists them.
        """
        raise CheckpointError(f"released PAE tokenizers have no names for {type(self).__name__}")

    def to_released(self) -> dict[str, Tensor]:
        """The inverse of :meth:`from_released`: this encoder's weights by their released names."""
        raise CheckpointError(f"released PAE tokenizers have no names for {type(self).__name__}")

    def pretraining(self, num_classes: int) -> PretrainingObjective:
        """The objective of the encoder's own training (``trainable`` encoders only).

        The objective holds the encoder and its heads; only the encoder is kept.
        """
        raise NotImplementedError(f"{type(self).__name__} has no training objective")


class PretrainingObjective(nn.Module, ABC):
    """Training objective of an encoder: a module that holds the encoder and its heads."""

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """:meth:`loss` of a batch of images and labels, as the training loop calls it."""
        images, labels = batch
        return self.loss(images, labels, generator)

    @abstractmethod
    def loss(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> LossTerms:
        """Loss terms of images (B, 3, S, S) in [0, 1] and labels (B,): means over images.

        Random numbers are drawn from ``generator`` with :func:`pae_framework.seeding.randn` or
        :func:`~pae_framework.seeding.rand`.
        """


# --- tokenizer ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Posterior:
    """Output of a bottleneck: ``latents`` (B, C, h, w); of a random one also their ``mean``; of a
    variational one also ``logvar``. Both are moments of the normal that the latents were sampled
    from, of the same shape."""

    latents: Tensor
    mean: Tensor | None = None
    logvar: Tensor | None = None


class Tokenizer(nn.Module, ABC):
    """Images to latents and back.

    Built as ``Tokenizer(config, image_size)``, except for the one that a recipe composes of an
    encoder, a modulator, a bottleneck and a decoder. The engine freezes it and keeps it in eval
    mode.
    """

    latent: LatentShape
    """Shape of the latents; that of the config's ``latent_shape``."""

    @abstractmethod
    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Posterior:
        """Latents (B, C, h, w) of images (B, 3, S, S) in [0, 1].

        A random tokenizer samples with the generator; without one, it returns its mean. The engine
        does not call it if the config says that the tokenizer does not encode.
        """

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, S, S) of latents (B, C, h, w): float32, nominally in [0, 1], not clamped.

        The engine does not call it if the config says that the tokenizer does not decode.
        """

    def load_pretrained(self) -> None:
        """Load the weights that the config names; until then weights are random.

        The engine calls it in the stage ``tokenizer``, which keeps the state dict for later stages.
        The default does nothing.

        Raises:
            DataError: the weights are missing and cannot be downloaded; says what to do.
            CheckpointError: they belong to another network; lists the differences.
        """


class Modulator(nn.Module, ABC):
    """Adds pixel detail to the encoder's tokens. Built as ``Modulator(config, encoder)``."""

    def __init__(self, config: ModulatorConfig, encoder: Encoder):
        super().__init__()

    @abstractmethod
    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Tokens (B, N, D) from normalized pixels (B, 3, S', S') and tokens (B, N, D)."""


class Bottleneck(nn.Module, ABC):
    """Turns the projector's output into latents. Built as ``Bottleneck(config, width, grid)``."""

    projected: ClassVar[bool] = True
    """Whether there is a projector to ``in_channels`` before it and a deprojector after it."""
    hides_nan: ClassVar[str] = ""
    """Why an image of NaN has finite latents, as the nearest entry of a codebook is; empty: it has
    latents of NaN. The conformance suite then does not expect NaN."""
    statistics_images: int = 0
    """Number of training images that :meth:`measure` needs before training."""
    in_channels: int
    """Input channels."""
    channels: int
    """Latent channels C."""

    def __init__(self, config: BottleneckConfig, width: int, grid: int):
        super().__init__()

    @abstractmethod
    def forward(self, x: Tensor, generator: torch.Generator | None) -> Posterior:
        """Latents of x (B, in_channels, h, w).

        With a generator (training) a random bottleneck samples with
        :func:`pae_framework.seeding.randn` or :func:`~pae_framework.seeding.rand`; without one
        (reconstruction) it is deterministic.
        """

    def invert(self, latents: Tensor) -> Tensor:
        """Undo the scaling of latents before decoding; the default returns them unchanged."""
        return latents

    def load_pretrained(self) -> None:
        """Load tensors that its parameters name, before training; by default none.

        Raises:
            DataError, CheckpointError: a file is missing, damaged or does not fit.
        """

    def measure(self, batches: Iterable[Tensor]) -> None:
        """Compute the statistics it needs from inputs (B, in_channels, h, w); by default none."""


class Decoder(nn.Module, ABC):
    """Tokens to images. Built as ``Decoder(config, width, grid)``."""

    def __init__(self, config: DecoderConfig, width: int, grid: int):
        super().__init__()

    @abstractmethod
    def forward(self, tokens: Tensor) -> Tensor:
        """Normalized pixels (B, 3, S, S) from tokens (B, N, width)."""

    @abstractmethod
    def last_layer(self) -> nn.Parameter:
        """The weight whose gradients determine adaptive loss weights."""


class Discriminator(nn.Module, ABC):
    """Classifies images as real or reconstructed. Built as ``Discriminator(config, image_size)``.

    It is in train mode in its own training steps, and in eval mode in those of the tokenizer.
    """

    batch_statistics: ClassVar[bool] = False
    """Whether its batch norm also uses batch statistics in the tokenizer's steps, because running
    averages lag behind; running averages are then not updated."""

    def __init__(self, config: DiscriminatorConfig, image_size: int):
        super().__init__()

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, M) of images (B, 3, S, S) in [0, 1], at M positions; high means real."""

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augment images (B, 3, S, S), real and reconstructed, before they are classified.

        Gradients flow through. Random numbers are drawn with :func:`pae_framework.seeding.randn` or
        :func:`~pae_framework.seeding.rand`. The default returns the images unchanged.
        """
        return images

    def load_pretrained(self) -> None:
        """Load the pretrained weights of a frozen backbone, if any; see :class:`Encoder`."""


# --- regularizers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class RegularizerInputs:
    """Inputs of a regularizer in one training step.

    Args:
        images: (B, 3, S, S) in [0, 1].
        reconstruction: same shape, with gradient.
        features: tokens (B, N, D) of the teacher, else of the encoder; without gradient.
        posterior: output of the bottleneck, with latents (B, C, h, w).
        target: prior (B, C', h, w) to align with, without gradient, for terms that need one: the
            refined prior, with C' = C, or the raw features, with C' = D.
        decode: latents -> images.
        distance: weighted sum of the active reconstruction terms of two image batches, a scalar.
        generator: random numbers of this term in this step, independent of other terms; for
            :func:`pae_framework.seeding.randn` and :func:`~pae_framework.seeding.rand`.
    """

    images: Tensor
    reconstruction: Tensor
    features: Tensor
    posterior: Posterior
    target: Tensor | None
    decode: Callable[[Tensor], Tensor]
    distance: Callable[[Tensor, Tensor], Tensor]
    generator: torch.Generator


class Regularizer(nn.Module, ABC):
    """One term of the tokenizer's loss. Built as ``Regularizer(config)``; the engine multiplies by
    the weight of the step, ``config.weight`` or its schedule's, and skips the term at weight 0."""

    adaptive: bool = False
    """Whether the engine also multiplies by the ratio of gradient norms, reconstruction over term,
    at the last layer before the latents (VA-VAE's adaptive weight). The config's ``adapts_weight``
    must say the same, so that recipes without a projector or reconstruction term are rejected."""

    def __init__(self, config: RegularizerConfig):
        super().__init__()

    def prepare(self, latent: LatentShape, width: int, target_channels: int | None) -> None:
        """Create parameters whose shapes depend on the tokenizer. Called once, before training.

        Args:
            latent: shape of the latents.
            width: D of the features that regularizers get.
            target_channels: channels of the target, for terms that need one; else None.
        """

    @abstractmethod
    def forward(self, inputs: RegularizerInputs) -> Tensor:
        """The unweighted term, a scalar: a mean over images."""


# --- generators -----------------------------------------------------------------------------------


class Generator(nn.Module, ABC):
    """A velocity model over latents. Built as ``Generator(config, latent, num_classes)``.

    ``num_classes`` is K; label K is the null label of classifier-free guidance.
    """

    conditional: bool = True
    """Whether the velocity depends on the label, as guidance requires."""

    def __init__(self, config: GeneratorConfig, latent: LatentShape, num_classes: int):
        super().__init__()
        self.latent = latent
        self.num_classes = num_classes

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Velocity dx/dt (B, C, h, w) at x (B, C, h, w), time t (B,) in [0, 1], labels y (B,)."""

    def from_official(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert the weights of an official checkpoint to this generator's state dict.

        The names of ``tensors`` are those of the file without wrapper prefixes, which
        :func:`~pae_framework.weight_files.read_checkpoint` removes.

        Raises:
            CheckpointError: they belong to another network or size (describes it), or are not
                finite.
        """
        raise CheckpointError(f"{type(self).__name__} has no official checkpoints")

    def to_official(self) -> dict[str, Tensor]:
        """The inverse of :meth:`from_official`: this generator's weights by official names."""
        raise CheckpointError(f"{type(self).__name__} has no official checkpoints")

    def save_diffusers(self, folder: Path, mean: Tensor, std: Tensor, shift: float) -> None:
        """Write the generator as a pipeline folder for Hugging Face's Diffusers.

        Args:
            folder: created if missing.
            mean: mean of the training latents, (1, C, 1, 1).
            std: their standard deviation, (1, C, 1, 1).
            shift: shift of sampling times, in our time convention.

        Raises:
            UsageError: Diffusers is not installed; names the package to install.
            CheckpointError: the generator has no Diffusers form.
        """
        raise CheckpointError(f"{type(self).__name__} has no Diffusers form")


# --- evaluators -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metric:
    """A value with the protocol needed to compare it.

    Args:
        name: ``group/metric``, such as ``generation/fd_small_cnn``.
        label: a short table heading, such as ``gFD``.
        value: the value.
        higher_is_better: whether a larger value is better.
        protocol: how it was measured: reference, counts, features, weights, solver, evaluations,
            guidance, seed. Two values are comparable if their protocols are equal, so it holds
            nothing else.
        std: its standard deviation, if known.
        at: what varies within the group, such as ``{"steps": 10}``.
        subject: what was measured: the tokenizer, the generator, the samples.
    """

    name: str
    label: str
    value: float
    higher_is_better: bool
    protocol: Mapping[str, Any]
    std: float | None = None
    at: Mapping[str, Any] = field(default_factory=dict)
    subject: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SampleSet:
    """Sampled images (M, 3, S, S) uint8 with labels (M,), and how they were sampled."""

    images: Tensor
    labels: Tensor
    generator_step: int
    """Training step of the weights; 0 if they were imported."""
    steps: int
    role: str
    """``main``: the recipe's settings; ``checkpoint``: earlier weights; ``convergence``: earlier
    and last weights, sampled as ``sample.convergence`` says; ``variant``: sampled as an entry of
    ``sample.variants`` says; ``few_steps``: other ``steps`` or solver."""
    protocol: Mapping[str, Any]
    variant: str | None = None
    """Label in ``sample.variants``; None for other roles."""

    @property
    def sampling(self) -> dict[str, Any]:
        """How they were sampled; see :func:`sampling_of`."""
        return sampling_of(self.protocol)

    @property
    def origin(self) -> dict[str, Any]:
        """Which weights sampled them; see :func:`origin_of`."""
        return origin_of(self.protocol)


_OF_WEIGHTS = ("generator_step", "images_seen", "epochs", "weights")


def sampling_of(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """How images were sampled, for the protocol of a metric: solver, guidance, labels, seed."""
    stated = {key: value for key, value in protocol.items() if key not in _OF_WEIGHTS}
    return {"precision": "float32", **stated}


def origin_of(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Which weights images were sampled with, for the subject of a metric."""
    return {key: protocol[key] for key in _OF_WEIGHTS if key in protocol}


class Extractor(Protocol):
    """Features for Frechet distances, from a network used only for evaluation."""

    @property
    def name(self) -> str:
        """Its name in the names of metrics; begins with ``random_`` if its weights are random."""

    def label(self, label: str) -> str:
        """What a Frechet distance in its features is called: ``gFID``, ``gFD (dinov2 ...)``.

        Args:
            label: such as ``gFD`` or ``rFD``.
        """

    def __call__(self, images: Tensor) -> Tensor:
        """Features (M, D) float64 on the CPU of uint8 images (M, 3, S, S)."""


@dataclass(frozen=True, eq=False)
class FeatureReference:
    """A normal distribution of features that images are compared with.

    Args:
        mean: (F,) float64.
        covariance: (F, F) float64, unbiased.
        count: number of images.
        protocol: what they are, for the protocols of metrics.
    """

    mean: Tensor
    covariance: Tensor
    count: int
    protocol: Mapping[str, Any]


class InceptionNetwork(Protocol):
    """The network of FID and its family, with some weights."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the file of its weights; ``none``: random weights."""

    @property
    def widths(self) -> tuple[int, int]:
        """Widths of the pooled and of the spatial features: 2048 and 2023."""

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled and spatial features (M, D), float32 on the CPU, of uint8 images (M, 3, H, W)."""

    def logits(self, pool: Tensor) -> Tensor:
        """Logits (M, 1008) on the CPU of pooled features (M, 2048)."""


class FDr6Features(Protocol):
    """Features by one of the networks of FDr6, with some weights."""

    @property
    def digest(self) -> str:
        """Digest of the weights; ``none``: random weights of Inception."""

    @property
    def reference(self) -> FeatureReference:
        """All training images, not mirrored, in these features.

        Raises:
            DataError: there are fewer than two.
        """

    def __call__(self, images: Tensor) -> Tensor:
        """Features (M, D) on the CPU of uint8 images (M, 3, S, S)."""


class LatentRows(Protocol):
    """Latents on disk, which are read by row."""

    def __len__(self) -> int:
        """Number of rows."""

    def read(self, indices: Tensor) -> Tensor:
        """Latents (B, C, h, w) float32, not normalized, of rows (B,)."""


OPTIONAL_INPUTS = frozenset({"features", "perceptual", "encode", "decode"})
"""What not every tokenizer has: the encoder's tokens, also pooled; a perceptual distance; latents
of images; images of latents."""


class EvaluationInputs(ABC):
    """Inputs of evaluators: M test images, and what the run computes from them.

    Properties are computed at first use and cached.
    """

    @property
    def unavailable(self) -> Mapping[str, str]:
        """What this run cannot compute, each with the reason: keys of :data:`OPTIONAL_INPUTS`.

        An evaluator leaves out the metrics that need it and says so in its notes.
        """
        return {}

    @property
    @abstractmethod
    def images(self) -> Tensor:
        """The test images (M, 3, S, S) uint8."""

    @property
    @abstractmethod
    def indices(self) -> Sequence[int]:
        """Indices (M,) of the test images in their data source."""

    @property
    @abstractmethod
    def labels(self) -> Tensor:
        """Labels (M,) of the test images."""

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """Name of each class, by label."""

    @property
    @abstractmethod
    def masks(self) -> Tensor | None:
        """Segmentation masks (M, S, S) of the test images; None if their source has none."""

    def masks_of(self, indices: Tensor) -> Tensor | None:
        """Masks (B, S, S) of B of the M test images; reads no others."""
        return None if self.masks is None else self.masks[indices]

    @property
    @abstractmethod
    def reconstructions(self) -> Tensor:
        """Reconstructions (M, 3, S, S) uint8 of the test images."""

    @property
    @abstractmethod
    def latents(self) -> Tensor:
        """Latents (M, C, h, w) of the test images, not normalized, on the CPU."""

    @property
    @abstractmethod
    def train_latents(self) -> LatentRows:
        """Latents of the training images as they are, not mirrored, of the stage ``latents``."""

    @property
    @abstractmethod
    def pooled_features(self) -> Tensor:
        """Mean token (M, D) of the frozen encoder for each test image, on the CPU."""

    @property
    @abstractmethod
    def sample_sets(self) -> Sequence[SampleSet]:
        """The sample sets of the sample stage."""

    @property
    @abstractmethod
    def extractor(self) -> Extractor:
        """The network that computes features for Frechet distances."""

    @property
    @abstractmethod
    def image_features(self) -> Tensor:
        """Features (M, F) float64 of the test images by :attr:`extractor`, on the CPU."""

    @property
    @abstractmethod
    def training_reference(self) -> FeatureReference:
        """All training images, not mirrored, in features by :attr:`extractor`.

        Raises:
            DataError: there are fewer than two.
        """

    @abstractmethod
    def inception(self, weights: str) -> InceptionNetwork:
        """The Inception network, which all processes apply to batches of images.

        Args:
            weights: ``default`` for the published weights, ``none`` for random ones, or a file.

        Raises:
            DataError: the weights are missing.
        """

    @abstractmethod
    def fdr6_features(self, name: str, weights: str) -> FDr6Features:
        """A network of FDr6, which all processes apply to batches of images.

        Args:
            name: a key of :data:`pae_framework.metrics.fdr6.VALIDATION`.
            weights: ``default`` for the published ones, ``none`` for random ones, or a folder of
                files; of Inception as in :meth:`inception`.

        Raises:
            DataError: the weights are missing.
        """

    @property
    @abstractmethod
    def perceptual_name(self) -> str:
        """Name of the distance that :meth:`perceptual` computes: LPIPS, or its substitute."""

    @property
    @abstractmethod
    def protocol(self) -> Mapping[str, Any]:
        """The test images, their size, how floats become uint8, and the evaluation seed."""

    @abstractmethod
    def protocol_of(self, part: str) -> Mapping[str, Any]:
        """What identifies a part of the evaluation.

        It belongs to the protocol of a metric that is measured with this part, and to the subject
        of a metric of this part.

        Args:
            part: ``test_images``, ``training_images``, ``tokenizer``, ``encoder``, ``extractor``,
                ``perceptual`` (the distance) or ``generator``.

        Returns:
            Values in JSON types. Of a network: its name or fingerprint, the digest of its weights
            (``<part>_digest``), and the seed it was trained with (``<part>_seed``).

        Raises:
            ValueError: there is no such part.
        """

    @property
    @abstractmethod
    def seed(self) -> int:
        """The recipe's seed."""

    @property
    def device(self) -> torch.device:
        """Where an evaluator may compute what takes long."""
        return torch.device("cpu")

    @abstractmethod
    def features(self, indices: Tensor) -> Tensor:
        """Tokens (B, N, D) of the frozen encoder for B of the M test images.

        Computed at each call, because the tokens of all images may not fit into memory.
        """

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, S, S) in about [0, 1] of latents (B, C, h, w)."""

    @abstractmethod
    def perceptual(self, a: Tensor, b: Tensor) -> Tensor:
        """Perceptual distance (B,) between two batches of images (B, 3, S, S) in [0, 1]."""


@dataclass(frozen=True)
class Notes:
    """What a reader of an evaluator's metrics must know; cards show it."""

    not_available: dict[str, str] = field(default_factory=dict)
    """Metrics that could not be computed, each with the reason."""
    cautions: list[str] = field(default_factory=list)


class Evaluator(ABC):
    """Computes metrics of a finished run. Built as ``Evaluator(config)``."""

    def __init__(self, config: EvaluatorConfig):
        self.config = config

    @cached_property
    def notes(self) -> Notes:
        """Filled by :meth:`evaluate`."""
        return Notes()

    @abstractmethod
    def evaluate(self, inputs: EvaluationInputs, directory: Path) -> list[Metric]:
        """Compute the metrics; write pictures and tables into ``directory``."""


class Tracker:
    """Follows a run, through life-cycle hooks. Built as ``Tracker(config)`` when the run starts.

    Its methods with the names of life-cycle hooks, marked with ``hookimpl``, are called as those of
    a plugin's module (:mod:`pae_framework.hookspecs`). An error in one does not stop the run.
    """

    def __init__(self, config: TrackerConfig):
        self.config = config
