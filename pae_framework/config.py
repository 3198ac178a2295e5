"""Config models of components: what a recipe writes after ``use:``, in one place.

Each component has one small pydantic model; it is what the recipe may contain, what validation
checks and what ``pae show-plugin`` prints. This module and every module that holds a config model
import no torch. The base classes add the few questions the engine asks of a component before it is
built; an answer that cannot be given is a ``ValueError`` whose text the user will read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt


def _distinct(steps: tuple[int, ...]) -> tuple[int, ...]:
    twice = sorted({step for step in steps if steps.count(step) > 1})
    if twice:
        raise ValueError(f"names {', '.join(map(str, twice))} more than once")
    return steps


Steps = Annotated[tuple[PositiveInt, ...], AfterValidator(_distinct)]
"""Counts of steps, each once."""


class Settings(BaseModel):
    """Base of everything a recipe holds: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def files(self) -> Mapping[str, Path]:
        """Files that values of this model name, by key. Fingerprints count what is in them, so that
        a file may move, and another of the same name is another."""
        return {}


class ComponentConfig(Settings):
    """Parameters of one component."""

    version: ClassVar[int] = 1
    """Raise it when the component computes something else from the same parameters: stages that
    used the older one are then run again."""

    without_effect: ClassVar[frozenset[str]] = frozenset()
    """Parameters that change no result but for rounding, such as the kernel that computes it: they
    are left out of fingerprints."""

    def missing(self) -> str | None:
        """Say what is not on this machine (data, weights, a package) and where it was looked for.

        None: nothing is. Called by ``pae check``, which reports it, and before a run starts, which
        refuses.
        """
        return None

    def fetch(self) -> str | None:
        """Bring here what :meth:`missing` names, where it can be downloaded; ``pae fetch`` asks.

        Returns what was brought, or None where there was nothing to bring.

        Raises:
            DataError: it cannot be had; says why.
        """
        return None

    def smoke(self) -> Self:
        """The same component made small and untrained, for ``pae run RECIPE --smoke``.

        What keeps its shape: patch sizes and latent channels, which the parts of a recipe agree on.
        The default changes nothing.
        """
        return self


@dataclass(frozen=True)
class LatentShape:
    """Shape of one image's latent: ``(channels, side, side)``."""

    channels: int
    side: int

    def __str__(self) -> str:
        return f"{self.channels} x {self.side} x {self.side}"


class DataSourceConfig(ComponentConfig):
    """Parameters of a data source."""

    provides_masks: ClassVar[bool] = False
    """Whether each image comes with a segmentation mask."""

    def expected(self) -> tuple[int, int] | None:
        """Images and classes of the data where the parameters alone tell them, else None.

        ``pae run --dry-run`` counts with them where the data are not at hand.
        """
        return None

    def class_count(self) -> int | None:
        """Classes of the data where the parameters alone tell them, else None.

        A generator that states another count is refused when the recipe is read.
        """
        expected = self.expected()
        return None if expected is None else expected[1]


class EncoderConfig(ComponentConfig):
    """Parameters of an encoder."""

    trainable: ClassVar[bool] = False
    """Whether the encoder knows how to train itself in a stage of the run (a ``train:`` block)."""

    def token_grid(self, image_size: int) -> int:
        """Tokens per side for square images of ``image_size`` px.

        Raises:
            ValueError: the image size does not fit this encoder.
        """
        raise NotImplementedError

    def token_width(self) -> int:
        """Width D of the tokens."""
        raise NotImplementedError

    def token_heads(self) -> int | None:
        """Attention heads H that divide D, as the encoder's ``heads``; None: not known yet."""
        return None

    def parameters(self, image_size: int) -> int | None:
        """How many numbers its weights hold; None: not known before it is built."""
        return None

    def activations(self, image_size: int) -> int | None:
        """Numbers one image leaves for the backward pass; None: not known.

        The default takes the encoder for a transformer of blocks of one width.
        """
        parameters = self.parameters(image_size)
        if parameters is None:
            return None
        return block_activations(parameters, self.token_grid(image_size) ** 2, self.token_width())


class ModulatorConfig(ComponentConfig):
    """Parameters of a modulator, which adds pixel detail to the encoder's tokens."""

    attends: ClassVar[bool] = False
    """Whether it attends over the tokens: its heads divide D, and D is divisible by 4 (positions).
    """

    def stated_heads(self) -> int | None:
        """Attention heads that its parameters state; None: those of the encoder."""
        return None

    def parameters(self, encoder: EncoderConfig, image_size: int) -> int | None:
        """Number of parameters beside that encoder; None: not known before it is built."""
        return None

    def activations(self, encoder: EncoderConfig, image_size: int) -> int | None:
        """Numbers one image leaves for the backward pass; None: not known.

        The default takes the modulator for a transformer of blocks as wide as the tokens.
        """
        parameters = self.parameters(encoder, image_size)
        if parameters is None:
            return None
        return block_activations(
            parameters, encoder.token_grid(image_size) ** 2, encoder.token_width()
        )


class BottleneckConfig(ComponentConfig):
    """Parameters of a bottleneck, which turns tokens of width D into latents."""

    projects: ClassVar[bool] = True
    """Whether a projector comes before it and a deprojector after; without, nothing is refined."""

    has_moments: ClassVar[bool] = False
    """Whether its latents come with a mean and a variance."""

    def latent_channels(self, token_width: int) -> int:
        """Channels of the latents made from tokens of ``token_width``."""
        raise NotImplementedError


class DecoderConfig(ComponentConfig):
    """Parameters of a decoder."""

    def image_size(self, grid: int) -> int:
        """Side in px of the images decoded from ``grid`` x ``grid`` tokens."""
        raise NotImplementedError

    def parameters(self, width: int, grid: int) -> int | None:
        """How many numbers its weights hold, by D and tokens per side; None: not known."""
        return None

    def activations(self, grid: int) -> int | None:
        """Numbers one image leaves for the backward pass; None: not known."""
        return None

    def check_latent(self, latent: LatentShape) -> None:
        """Refuse latents whose tokens this decoder cannot take.

        Raises:
            ValueError: with what was found and what would be right.
        """


class DiscriminatorConfig(ComponentConfig):
    """Parameters of a discriminator, the opponent in the adversarial term."""

    def check_image_size(self, image_size: int) -> None:
        """Refuse images this network cannot take.

        Raises:
            ValueError: with what was found and what would be right.
        """

    def parameters(self, image_size: int) -> int | None:
        """How many numbers its weights hold; None: not known before it is built."""
        return None


class RegularizerConfig(ComponentConfig):
    """Parameters of one term of the tokenizer's loss."""

    needs_target: ClassVar[bool] = False
    """Whether the term needs the refined prior target: ``tokenizer.refinement`` in the recipe."""

    needs_moments: ClassVar[bool] = False
    """Whether the term needs a bottleneck with a mean and a variance (``gaussian``)."""

    needs_distance: ClassVar[bool] = False
    """Whether the term is measured by the reconstruction terms' distance, so is 0 without any."""

    weight: float = Field(1.0, ge=0, description="factor of the term; 0 skips it altogether")

    @property
    def adapts_weight(self) -> bool:
        """Whether ``|grad of reconstruction| / |grad of the term|`` also multiplies the term.

        Both gradients are those of the last layer before the latents: the term needs a bottleneck
        with a projector and a reconstruction term.
        """
        return False

    @property
    def decodes(self) -> int:
        """Decodes with gradient in each step, besides the reconstruction."""
        return 0

    def check_latent(self, latent: LatentShape) -> None:
        """Refuse latents this term cannot work on.

        Raises:
            ValueError: with what was found and what would be right.
        """


class GeneratorConfig(ComponentConfig):
    """Parameters of a generator."""

    @property
    def conditional(self) -> bool:
        """Whether the velocity depends on the label; without, there is no classifier-free guidance.

        It needs a null label as well as the others.
        """
        return True

    def stated_classes(self) -> int | None:
        """How many classes the labels must have, where the parameters say so; None: any number."""
        return None

    def parameters(self, latent: LatentShape, num_classes: int) -> int | None:
        """How many numbers its weights hold; None: not known before it is built."""
        return None

    def activations(self, latent: LatentShape) -> int | None:
        """Numbers one latent leaves for the backward pass; None: not known."""
        return None

    def check_latent(self, latent: LatentShape) -> None:
        """Refuse latents this network cannot take.

        Raises:
            ValueError: with what was found and what would be right.
        """


class EvaluatorConfig(ComponentConfig):
    """Parameters of an evaluator."""

    @property
    def needs(self) -> frozenset[str]:
        """What it must be given with these parameters, from ``EVALUATION_NEEDS``.

        The engine computes each once.
        """
        return frozenset()


EVALUATION_NEEDS = frozenset({"reconstructions", "latents", "samples", "extractor", "masks"})


def block_activations(parameters: int, tokens: int, width: int) -> int:
    """Numbers that pre-norm transformer blocks keep for the backward pass, for one image.

    Korthikanti et al. 2022 (arXiv 2205.05198, section 4.1) count 34 s b h bytes per block in half
    precision besides attention's matrices. Without dropout's masks, and with fused attention, which
    keeps no matrix, 16 numbers per token and channel are left: both norms' inputs and outputs (4),
    q, k, v and what attention gives (4), and both sides of a 4-fold GELU (8). Such a block has
    12 D^2 weights, so from ``parameters`` and D alone: 16 N D (P / 12 D^2) = 4/3 N P / D.
    """
    return 4 * tokens * parameters // (3 * width)
