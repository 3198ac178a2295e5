"""What a component of each kind must be: the classes plugins derive from, and what they exchange.

Conventions, everywhere: images are RGB, ``(B, 3, S, S)``, float32 in [0, 1] (uint8 0..255 where a
name says so), square. Tokens are ``(B, N, D)`` with N = grid * grid in row-major order. Latents are
``(B, C, h, w)``. Time t is 0 at noise and 1 at data. Random generators that components are given
are on the CPU, so that the same numbers come out on every device. A component is built with its
config model first and then what only the engine knows.

Legend: B batch, N tokens, D token width, C latent channels, h = w grid side, S image side in px.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
)
from pae_framework.errors import CheckpointError

LossTerms = dict[str, Tensor]
"""Terms of a loss, scalars, already weighted; the key ``loss`` is what is minimised."""

Batch = tuple[Tensor, ...]
"""A training batch: tensors with one row per image."""


# --- data sources ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelledImage:
    """One image: ``image`` (3, S, S) uint8, ``label`` from 0 to the class count - 1."""

    image: Tensor
    label: int


class DataSource(ABC):
    """A fixed, ordered set of labelled images of one size. Reading index i twice gives the same.

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
    def __getitem__(self, index: int) -> LabelledImage:
        """Read one image, resized to ``image_size``.

        Raises:
            DataError: the image cannot be read; names the file.
        """

    def mask(self, index: int) -> Tensor | None:
        """Segments of the image as (S, S) int64, or None where the source has no masks."""
        return None


# --- encoders -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Features:
    """What an encoder sees in a batch: ``tokens`` (B, N, D) without class or register tokens, after
    a final norm without affine; ``pooled`` (B, D)."""

    tokens: Tensor
    pooled: Tensor


class Encoder(nn.Module, ABC):
    """Images to features. The engine freezes it, keeps it in eval mode and gives it float32 images.

    The encoder owns its input convention: :meth:`normalize` resizes and standardises [0, 1] images
    to what :meth:`forward` takes. Built as ``Encoder(config, image_size)``.
    """

    grid: int
    """Tokens per side."""
    width: int
    """Token width D."""
    heads: int
    """Attention heads; modulator and projector use as many."""
    patch: int
    """Side in px of the patch one token stands for, in the encoder's input."""
    mean: tuple[float, float, float]
    """Channel means :meth:`normalize` subtracts."""
    std: tuple[float, float, float]
    """Channel deviations :meth:`normalize` divides by."""

    def __init__(self, config: EncoderConfig, image_size: int):
        super().__init__()
        self.config = config
        self.image_size = image_size

    def normalize(self, images: Tensor) -> Tensor:
        """Turn images (B, 3, S, S) in [0, 1] into the encoder's input (B, 3, S', S')."""
        mean = images.new_tensor(self.mean).view(1, 3, 1, 1)
        std = images.new_tensor(self.std).view(1, 3, 1, 1)
        return (images - mean) / std

    def denormalize(self, pixels: Tensor) -> Tensor:
        """Inverse of the standardisation, not of the resize: (B, 3, H, W) to about [0, 1]."""
        mean = pixels.new_tensor(self.mean).view(1, 3, 1, 1)
        std = pixels.new_tensor(self.std).view(1, 3, 1, 1)
        return pixels * std + mean

    @abstractmethod
    def forward(self, pixels: Tensor) -> Features:
        """Features of normalised pixels (B, 3, S', S')."""

    def feature_maps(self, pixels: Tensor) -> Iterable[Tensor]:
        """Features after each block, each (B, n, d): what perceptual distances compare.

        Gradients flow to ``pixels``. Best a generator: who needs the first blocks only stops there
        and the rest is not computed. The default is the final tokens alone.
        """
        return [self.forward(pixels).tokens]

    def load_pretrained(self) -> None:
        """Load the weights the config names; until then they are random.

        The engine calls it once after construction, unless a stage of the run or an imported
        tokenizer brings the weights. The default, for encoders without any, does nothing.

        Raises:
            DataError: the weights are not here and cannot be downloaded; says what to do.
            CheckpointError: they belong to another network; says what differs.
        """

    def from_released(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The encoder's weights inside a released PAE tokenizer, as this encoder's state dict.

        ``tensors`` carry the names they have there, less the leading ``encoder.``.

        Raises:
            CheckpointError: names are missing or unknown; lists them.
        """
        raise CheckpointError(f"{type(self).__name__} has no place in released PAE tokenizers")

    def to_released(self) -> dict[str, Tensor]:
        """The inverse of :meth:`from_released`: this encoder's weights by their released names."""
        raise CheckpointError(f"{type(self).__name__} has no place in released PAE tokenizers")

    def pretraining(self, num_classes: int) -> PretrainingObjective:
        """The objective the encoder is trained by in its own stage (``trainable`` encoders only).

        The objective holds the encoder and any heads it needs; only the encoder is kept.
        """
        raise NotImplementedError(f"{type(self).__name__} does not train itself")


class PretrainingObjective(nn.Module, ABC):
    """How a trainable encoder is trained: a module that holds the encoder and its heads."""

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """What the training loop calls: :meth:`loss` of a batch of images and labels."""
        images, labels = batch
        return self.loss(images, labels, generator)

    @abstractmethod
    def loss(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> LossTerms:
        """Loss of images (B, 3, S, S) in [0, 1] with labels (B,); randomness from ``generator``."""


# --- tokenizer parts ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Posterior:
    """What a bottleneck makes of a batch: ``latents`` (B, C, h, w), and for variational ones the
    ``mean`` and ``logvar`` they were drawn from."""

    latents: Tensor
    mean: Tensor | None = None
    logvar: Tensor | None = None


class Modulator(nn.Module, ABC):
    """Adds pixel detail to the encoder's tokens. Built as ``Modulator(config, encoder)``."""

    def __init__(self, config: ModulatorConfig, encoder: Encoder):
        super().__init__()

    @abstractmethod
    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Tokens (B, N, D) from normalised pixels (B, 3, S', S') and tokens (B, N, D)."""


class Bottleneck(nn.Module, ABC):
    """Turns what the projector gives into latents. Built as ``Bottleneck(config, width, grid)``."""

    projected: ClassVar[bool] = True
    """Whether a projector to ``in_channels`` comes before (and a deprojector after)."""
    statistics_images: int = 0
    """Training images :meth:`measure` is shown before training; 0: it needs none."""
    in_channels: int
    """Channels it takes."""
    channels: int
    """Latent channels C."""

    def __init__(self, config: BottleneckConfig, width: int, grid: int):
        super().__init__()

    @abstractmethod
    def forward(self, x: Tensor, generator: torch.Generator | None) -> Posterior:
        """Latents of x (B, in_channels, h, w). With a generator: drawn at random where the
        bottleneck is random (training); without: deterministic (extraction, reconstruction)."""

    def invert(self, latents: Tensor) -> Tensor:
        """What the decoder side takes, from latents; the identity unless latents were scaled."""
        return latents

    def measure(self, batches: Iterable[Tensor]) -> None:
        """Set the statistics from inputs (B, in_channels, h, w), where the bottleneck needs any."""


class Decoder(nn.Module, ABC):
    """Tokens to images. Built as ``Decoder(config, width, grid)``."""

    def __init__(self, config: DecoderConfig, width: int, grid: int):
        super().__init__()

    @abstractmethod
    def forward(self, tokens: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) from tokens (B, N, width)."""

    @abstractmethod
    def last_layer(self) -> nn.Parameter:
        """The weight whose gradients balance adaptive loss weights."""


class Discriminator(nn.Module, ABC):
    """Tells images from reconstructions. Built as ``Discriminator(config, image_size)``.

    It is in train mode for its own steps. While the tokenizer learns from it, it is in eval mode.
    """

    batch_statistics: ClassVar[bool] = False
    """Whether its batch norm takes the batch's statistics also while the tokenizer learns from it,
    as in its own steps (running ones lag behind and are of other batches); these do not move."""

    def __init__(self, config: DiscriminatorConfig, image_size: int):
        super().__init__()

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, M) of images (B, 3, S, S) in [0, 1]; high: taken for real. One for each of
        the M places it looks at."""

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images (B, 3, S, S) changed at random before they are judged, real and false alike.

        Gradients flow through. The default changes nothing.
        """
        return images

    def load_pretrained(self) -> None:
        """Load the weights of its frozen part, if it has one; see :class:`Encoder`."""


# --- regularizers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class RegularizerInputs:
    """What a regularizer may look at in one training step.

    ``images`` (B, 3, S, S) in [0, 1]; ``reconstruction`` the same shape, with gradient;
    ``features`` (B, N, D) frozen encoder tokens; ``posterior`` with latents (B, C, h, w);
    ``target`` (B, C', h, w) the prior to align with, without gradient, for terms that need one: the
    refined prior, with as many channels as the latents, or the raw features, with D;
    ``decode`` latents -> images; ``distance`` the L1 + perceptual terms of the recipe's
    reconstruction, between two image batches, a scalar; ``generator`` the term's own random
    numbers of the step, the same whichever other terms there are.
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
    ``config.weight`` and skips the term when that is 0."""

    adaptive: bool = False
    """Whether the engine also multiplies by the ratio of gradient norms, reconstruction over term,
    at the last layer before the latents (VA-VAE's adaptive weight)."""

    def __init__(self, config: RegularizerConfig):
        super().__init__()

    def prepare(self, latent: LatentShape, width: int, target_channels: int | None) -> None:
        """Make parameters whose shapes depend on the tokenizer. Called once, before training.

        Args:
            latent: shape of the latents.
            width: D of the encoder's tokens.
            target_channels: channels of the target, for terms that need one; else None.
        """

    @abstractmethod
    def forward(self, inputs: RegularizerInputs) -> Tensor:
        """The unweighted term, a scalar."""


# --- generators -----------------------------------------------------------------------------------


class Generator(nn.Module, ABC):
    """A velocity model over latents. Built as ``Generator(config, latent, num_classes)``.

    ``num_classes`` is K; label K is the null label of classifier-free guidance.
    """

    conditional: bool = True
    """Whether the velocity depends on the label; where not, there is nothing to guide by."""

    def __init__(self, config: GeneratorConfig, latent: LatentShape, num_classes: int):
        super().__init__()
        self.latent = latent
        self.num_classes = num_classes

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Velocity dx/dt (B, C, h, w) at x (B, C, h, w), time t (B,) in [0, 1], labels y (B,)."""

    def from_official(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights in an official checkpoint of this network, as this generator's state dict.

        ``tensors`` carry the names they have there, without wrapper prefixes
        (:func:`~pae_framework.tensor_files.read_checkpoint` takes them off).

        Raises:
            CheckpointError: they belong to another network or size, or are not finite; says which.
        """
        raise CheckpointError(f"{type(self).__name__} has no official checkpoints")

    def to_official(self) -> dict[str, Tensor]:
        """The inverse of :meth:`from_official`: this generator's weights by official names."""
        raise CheckpointError(f"{type(self).__name__} has no official checkpoints")

    def save_diffusers(self, folder: Path, mean: Tensor, std: Tensor, shift: float) -> None:
        """Write the generator as a pipeline folder that Hugging Face's Diffusers loads.

        Args:
            folder: is made if it is not there.
            mean: of the latents it was trained on, (1, C, 1, 1).
            std: their deviation, (1, C, 1, 1).
            shift: of sampling times, in our time.

        Raises:
            UsageError: Diffusers is not installed; says how.
            CheckpointError: this kind of generator has no Diffusers form.
        """
        raise CheckpointError(f"{type(self).__name__} has no Diffusers form")


# --- evaluators -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metric:
    """One measured value with everything needed to compare it with others.

    ``name`` is ``group/metric`` (``generation/fd_small_cnn``); ``label`` a short table heading
    (``gFD``); ``at`` what varies within a group (``{"steps": 10}``); ``protocol`` the rest:
    reference, counts, features, weights, solver, evaluations, guidance, seed.
    """

    name: str
    label: str
    value: float
    higher_is_better: bool
    protocol: Mapping[str, Any]
    std: float | None = None
    at: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SampleSet:
    """Sampled images (M, 3, S, S) uint8 with labels (M,), and how they were sampled."""

    images: Tensor
    labels: Tensor
    generator_step: int
    """Training step of the weights; 0 if they were trained elsewhere and loaded."""
    steps: int
    role: str
    """``main``: as the recipe says; ``checkpoint``: earlier weights; ``few_steps``: fewer steps."""
    protocol: Mapping[str, Any]


class Extractor(Protocol):
    """Features for Frechet distances, from a network trained apart from the networks it judges."""

    @property
    def name(self) -> str:
        """Name of the extractor in names of metrics."""

    def __call__(self, images: Tensor) -> Tensor:
        """Features (M, D) float64 on the CPU of uint8 images (M, 3, S, S)."""


class EvaluationInputs(ABC):
    """What evaluators are given: M test images and what the run makes of them.

    Everything is computed at first use and then kept, except where a method says otherwise.
    """

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

    @property
    @abstractmethod
    def reconstructions(self) -> Tensor:
        """The test images through the tokenizer and back, (M, 3, S, S) uint8."""

    @property
    @abstractmethod
    def latents(self) -> Tensor:
        """Latents (M, C, h, w) of the test images as the tokenizer gives them, on the CPU."""

    @property
    @abstractmethod
    def pooled_features(self) -> Tensor:
        """Mean token (M, D) of the frozen encoder for each test image, on the CPU."""

    @property
    @abstractmethod
    def sample_sets(self) -> Sequence[SampleSet]:
        """The sets that the sample stage wrote."""

    @property
    @abstractmethod
    def extractor(self) -> Extractor:
        """The network whose features Frechet distances are measured in."""

    @property
    @abstractmethod
    def image_features(self) -> Tensor:
        """Features (M, F) float64 of the test images by :attr:`extractor`, on the CPU."""

    @property
    @abstractmethod
    def perceptual_name(self) -> str:
        """Which distance :meth:`perceptual` is: LPIPS, or a substitute for it."""

    @property
    @abstractmethod
    def protocol(self) -> Mapping[str, Any]:
        """The part of the protocol that all metrics of the run share."""

    @property
    @abstractmethod
    def seed(self) -> int:
        """The recipe's seed."""

    @abstractmethod
    def features(self, indices: Tensor) -> Tensor:
        """Tokens (B, N, D) of the frozen encoder for the test images at ``indices`` (B,) of the M.

        They are computed at each call, since those of all images may not fit into memory.
        """

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, S, S) in about [0, 1] of latents (B, C, h, w)."""

    @abstractmethod
    def perceptual(self, a: Tensor, b: Tensor) -> Tensor:
        """Perceptual distance (B,) between two batches of images (B, 3, S, S) in [0, 1]."""


class Evaluator(ABC):
    """Computes metrics of a finished run. Built as ``Evaluator(config)``."""

    def __init__(self, config: EvaluatorConfig):
        self.config = config

    @abstractmethod
    def evaluate(self, inputs: EvaluationInputs, directory: Path) -> list[Metric]:
        """Compute the metrics; files to keep (pictures, tables) go into ``directory``."""
