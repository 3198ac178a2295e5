"""Base classes of config models: the parameters of components in a recipe. No torch.

Each component has one pydantic model. It defines and validates the keys that a recipe may contain;
``pae show-plugin`` prints them. Modules with config models must not import torch. The methods of
the base classes are called before a component is built. A method raises a ``ValueError`` if it
cannot return a valid result; its text is shown to the user.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    Tag,
    create_model,
    model_validator,
)
from pydantic_core import CoreSchema

# --- kinds of values ------------------------------------------------------------------------------

Count = Annotated[int, Gt(0), Le(1_000_000_000)]
"""A number of images, steps or draws."""

Seed = Annotated[int, Ge(0), Lt(1 << 63)]
"""A seed that every random generator takes."""

BatchSize = Annotated[int, Gt(0), Le(1_000_000)]
"""Images processed at once."""

Processes = Annotated[int, Gt(0), Le(1024)]
"""A number of processes or threads."""

Precision = Literal["float32", "bf16"]
"""How a network computes; bf16: under autocast."""

AttentionKernel = Literal["sdpa", "xformers", "matmul"]
"""How softmax attention is computed: by torch's ``scaled_dot_product_attention``, by xformers, or
by two plain matrix products, which can be faster on a CPU and keep all weights in memory."""

AttentionSetting = Annotated[
    AttentionKernel,
    Field(
        description="attention kernel: torch's, that of xformers (CUDA only), or plain matrix "
        "products, which can be faster on a CPU and need more memory; these count in fingerprints, "
        "because in bf16 they round the attention weights"
    ),
]
"""The setting ``attention`` of a component, which lists it in ``without_effect`` and has
``hashed_values = HASHED_KERNELS``."""

HASHED_KERNELS: Mapping[str, frozenset[Any]] = {"attention": frozenset({"matmul"})}
"""Kernels that count in fingerprints: in bf16 they round the attention weights to bf16."""

Workers = Annotated[int, Ge(0), Le(1024)]
"""A number of processes that load data; 0: the main process."""

Side = Annotated[int, Gt(0), Le(8192)]
"""A side of images, patches or grids, in px or tokens."""

Width = Annotated[int, Gt(0), Le(65_536)]
"""A number of channels, or of attention heads."""

Depth = Annotated[int, Gt(0), Le(128)]
"""A number of blocks or layers."""

LayerIndex = Annotated[int, Ge(0), Lt(128)]
"""A block or layer, counted from 0."""

MlpRatio = Annotated[float, Ge(0.25), Le(64)]
"""Width of an MLP's hidden layer over that of its input."""

Weight = Annotated[float, Ge(0), Le(1e9)]
"""Weight of a term of a loss; 0: off."""

StartStep = Annotated[int, Ge(0), Le(1_000_000_000)]
"""A step from which on something happens; 0: the first."""

Epochs = Annotated[float, Ge(0), Le(1_000_000)]
"""Passes over the data, also fractions of one."""

Magnitude = Annotated[float, Ge(1e-9), Le(1e9)]
"""A positive number that float32 holds and may square."""


def _distinct(steps: tuple[int, ...]) -> tuple[int, ...]:
    repeated = sorted(step for step, times in Counter(steps).items() if times > 1)
    if repeated:
        raise ValueError(f"steps must be distinct, but {', '.join(map(str, repeated))} is repeated")
    return steps


Distinct = AfterValidator(_distinct)
"""Step counts are distinct."""

Steps = Annotated[tuple[Count, ...], Len(0, 1000), Distinct]
"""Distinct step counts."""


def _usable_path(text: str) -> str:
    if not text:
        raise ValueError("expected a path, found an empty text")
    longest = max(len(part.encode()) for part in text.split("/"))
    if longest > 255 or len(text.encode()) > 4000:
        raise ValueError("the path is longer than file systems allow: 255 bytes for each name")
    try:
        Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"no home directory of the user in {text!r}") from None
    return text


PathText = Annotated[str, AfterValidator(_usable_path)]
"""A path that the file system takes; ``~`` is the home directory."""


def _scalars(schema: Any) -> Iterator[dict[str, Any]]:
    """The schemas of numbers and booleans inside a core schema."""
    if isinstance(schema, list | tuple):
        for entry in schema:
            yield from _scalars(entry)
    elif isinstance(schema, dict):
        if schema.get("type") in ("int", "float", "bool"):
            yield schema
        for key in ("schema", "items_schema", "keys_schema", "values_schema", "definitions"):
            yield from _scalars(schema.get(key))
        for key in ("fields", "choices"):
            inner = schema.get(key)
            yield from _scalars(list(inner.values()) if isinstance(inner, dict) else inner)


class Settings(BaseModel):
    """Base of all models of a recipe: unknown keys are errors, and instances are immutable.

    Values keep the type that is written: ``true`` and ``'1'`` are no numbers, and ``1.0`` is no
    integer (but ``1`` is a number). Integers fit into 64 bits, and numbers are finite.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    without_effect: ClassVar[frozenset[str]] = frozenset()
    """Settings that change no result, or only its rounding. Fingerprints do not include them."""

    hashed_values: ClassVar[Mapping[str, frozenset[Any]]] = {}
    """Values of such settings that fingerprints include all the same, because they round more."""

    former_defaults: ClassVar[Mapping[str, Any]] = {}
    """What an earlier version did, by key, where the default differs from it. Fingerprints include
    these settings unless they have this value, so old results are not taken for new ones."""

    former_keys: ClassVar[frozenset[str]] = frozenset()
    """Keys of an earlier version; the recipe that a run recorded may have them, with null."""

    number_means: ClassVar[str | None] = None
    """The key that a number in place of the map stands for; None: a number is an error."""

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Make scalars strict. ``strict=True`` of the model would also reject lists for tuples."""
        schema = handler(source)
        for scalar in _scalars(schema):
            scalar["strict"] = True
            if scalar["type"] == "int":
                if not {"gt", "ge"} & scalar.keys():
                    scalar["ge"] = -(1 << 63)
                if not {"lt", "le"} & scalar.keys():
                    scalar["lt"] = 1 << 63
        return schema

    def files(self) -> Mapping[str, Path]:
        """Files named by values of this model, by key.

        Fingerprints include their contents, not their names.
        """
        return {}

    @property
    def not_hashed(self) -> frozenset[str]:
        """The settings in ``without_effect`` whose values are not among ``hashed_values``."""
        hashed = self.hashed_values.items()
        return self.without_effect - {key for key, x in hashed if getattr(self, key) in x}

    def hashed(self) -> dict[str, Any]:
        """The values that fingerprints include, in JSON types: those that are not the defaults."""
        values = self.model_dump(mode="json", exclude_defaults=True, exclude=set(self.not_hashed))
        values |= self.model_dump(mode="json", include=set(self.former_defaults))
        for key, former in self.former_defaults.items():
            if values[key] == former:
                del values[key]
        return values


class Duration(Settings):
    """A part of a training, in steps or epochs."""

    steps: StartStep | None = Field(None, description="optimizer steps; or set `epochs`")
    epochs: Epochs | None = Field(None, description="passes over the data; or set `steps`")

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("set exactly one of `steps` and `epochs`")
        return self

    def in_steps(self, steps_per_epoch: float) -> int:
        """The same in optimizer steps."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return round(self.epochs * steps_per_epoch)


class Length(Duration):
    """A point of a training, in steps or epochs from its beginning."""

    def __str__(self) -> str:
        return f"epoch {self.epochs:g}" if self.steps is None else f"step {self.steps}"

    def same_unit(self, other: Length) -> bool:
        """Whether both are in steps or both are in epochs."""
        return (self.steps is None) == (other.steps is None)

    def before(self, other: Length) -> bool:
        """Whether this is earlier than ``other``; False if their units cannot be compared."""
        if self.steps is not None and other.steps is not None:
            return self.steps < other.steps
        if self.epochs is not None and other.epochs is not None:
            return self.epochs < other.epochs
        return not (self.steps or self.epochs) and bool(other.steps or other.epochs)

    def reaches(self, other: Length) -> bool:
        """Whether this is not earlier than ``other``; False if their units differ."""
        return self.same_unit(other) and not self.before(other)


if TYPE_CHECKING:

    class _From(Duration): ...

else:  # a class body cannot declare a field whose name is a keyword of Python
    _FIRST: Any = Field(0.0, description="weight in the first step of the term")
    _From = create_model("_From", __base__=Duration, **{"from": (Weight, _FIRST)})


class WeightSchedule(_From):
    """A weight that changes linearly over ``steps`` or ``epochs`` and then stays."""

    to: Weight = Field(description="weight after this time; 0: the term is then no longer computed")

    @model_validator(mode="after")
    def _changes(self) -> Self:
        if self.first == self.to:
            raise ValueError(f"`from` and `to` are equal; write a constant weight as {self.to:g}")
        if not (self.steps or self.epochs):
            raise ValueError(f"has no step; write a constant weight as {self.to:g}")
        return self

    @property
    def first(self) -> float:
        """The weight at the beginning: ``from``."""
        value: float = getattr(self, "from")
        return value


def _number_or_map(weight: object) -> str:
    # In the locations of pydantic's errors; no recipe key has these names.
    return "<map>" if isinstance(weight, dict | WeightSchedule) else "<number>"


TermWeight = Annotated[
    Annotated[Weight, Tag("<number>")] | Annotated[WeightSchedule, Tag("<map>")],
    Discriminator(_number_or_map),
]
"""A weight that is constant or has a schedule."""


class ComponentConfig(Settings):
    """Parameters of one component."""

    version: ClassVar[int] = 1
    """Increase it if the component computes different results from the same parameters. Stages that
    used an older version then run again."""

    required_methods: ClassVar[frozenset[str]] = frozenset()
    """Methods without a default, which a config model of this kind must define."""

    @classmethod
    def known_models(cls) -> Mapping[str, Sequence[str]]:
        """Names that a parameter ``model`` takes, each with the names of its weights; for
        ``pae show-plugin``.
        """
        return {}

    def missing(self) -> str | None:
        """Describe data, weights or packages that this machine lacks, and where they were expected.

        None if nothing is missing. ``pae check`` reports it, and ``pae run`` does not start.
        """
        return None

    def attention_kernel(self) -> AttentionKernel:
        """The kernel that the component's setting ``attention`` names, if it has one.

        That of xformers runs on a GPU only. ``pae check`` reports that it is not installed, and
        ``pae run`` tries it before the first stage.
        """
        return "sdpa"

    def check_classes(self, count: int) -> None:
        """Warn of a number of classes with which this component is of no use.

        Raises:
            ValueError: states what is of no use and what to set.
        """

    def fetch(self) -> str | None:
        """Download what :meth:`missing` describes, if it can be downloaded; for ``pae fetch``.

        Returns what was downloaded, or None if nothing was.

        Raises:
            DataError: the download failed; states the reason.
        """
        return None

    def smoke(self) -> Self:
        """A small, untrained version of this component, for ``pae run RECIPE --smoke``.

        Patch sizes and latent channels must not change, so that components still fit together. The
        default changes nothing.
        """
        return self


def written_defaults(model: type[BaseModel]) -> dict[str, Any]:
    """The defaults of a model as a recipe writes them: numbers, text, lists, maps and null.

    Raises:
        ValueError: a default is no such value; names it. NaN and infinity are none either.
    """
    defaults = model.model_construct()
    written: dict[str, Any] = {}
    for name in model.model_fields:
        try:
            written |= defaults.model_dump(mode="json", include={name}, warnings=False)
            exact = defaults.model_dump(include={name}, warnings=False)
            json.dumps(exact, allow_nan=False, skipkeys=True, default=str)
        except ValueError as error:
            value = getattr(defaults, name)
            raise ValueError(f"the default of {name}, {value!r}, is no YAML value") from error
    return written


@dataclass(frozen=True)
class LatentShape:
    """Shape of one image's latent: ``(channels, side, side)``."""

    channels: int
    side: int

    def __str__(self) -> str:
        return f"{self.channels} x {self.side} x {self.side}"


def _absolute(path: str) -> str:
    return os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - without `..`


class DataSourceConfig(ComponentConfig):
    """Parameters of a data source."""

    provides_masks: ClassVar[bool] = False
    """Whether each image comes with a segmentation mask, whatever the parameters."""

    locations: ClassVar[frozenset[str]] = frozenset()
    """Settings that only say where the files of :meth:`data_files` are. Fingerprints include the
    contents of the files in their place."""

    paths: ClassVar[frozenset[str]] = frozenset()
    """Settings that are paths, or several of them, relative to the working directory."""

    def anchored(self) -> Self:
        """The same with absolute paths, which hold in any working directory."""
        absolute: dict[str, Any] = {}
        for key in self.paths:
            if isinstance(written := getattr(self, key), str):
                absolute[key] = _absolute(written)
            elif written is not None:
                absolute[key] = tuple(map(_absolute, written))
        return self.model_copy(update=absolute)

    def has_masks(self) -> bool:
        """Whether each image comes with a segmentation mask, with these parameters."""
        return self.provides_masks

    def data_files(self) -> Mapping[str, Path] | None:
        """All files of images and labels, by names that do not depend on where the data are.

        None if the settings alone determine the images, or if something is missing.
        """
        return None

    def known_class_names(self) -> Sequence[str] | None:
        """Names of the classes, by label, if known without reading images; else None."""
        return None

    def image_files(self) -> Mapping[str, Path] | None:
        """The image files by name, if each image is a file of its own; None if one is missing."""
        return None

    def image_counts(self) -> Mapping[str, int] | None:
        """Number of images of each class that are there, in the order of the labels.

        None if something is missing, or if they are not known without reading images.
        """
        return None

    def left_out(self) -> str | None:
        """Counts of files that are where the data are but not read; None if there are none."""
        return None

    def read_before(self) -> str | None:
        """How the files that an earlier version read differ; None if they do not."""
        return None

    def expected(self) -> tuple[int, int] | None:
        """Number of images and of classes, if the parameters determine them; else None.

        ``pae run --dry-run`` uses them if the data are missing.
        """
        return None

    def class_count(self) -> int | None:
        """Number of classes, if the parameters determine it; else None.

        A recipe whose generator has another number of classes is rejected.
        """
        expected = self.expected()
        return None if expected is None else expected[1]

    def image_count(self) -> int | None:
        """Number of images, if the parameters determine it; else None.

        A recipe that needs more test images, or a later step of a training in epochs, is rejected.
        """
        expected = self.expected()
        return None if expected is None else expected[0]


class TokenizerConfig(ComponentConfig):
    """Parameters of a trained tokenizer that is one component: images to latents and back."""

    required_methods = frozenset({"latent_shape"})

    def latent_shape(self, image_size: int) -> LatentShape:
        """Shape of the latents of square images of ``image_size`` px.

        Raises:
            ValueError: the image size does not fit this tokenizer.
        """
        raise NotImplementedError

    @property
    def encodes(self) -> bool:
        """Whether it turns images into latents with these parameters."""
        return True

    @property
    def decodes(self) -> bool:
        """Whether it turns latents into images with these parameters."""
        return True

    def latents_folder(self) -> str | None:
        """Folder of the latents of the training images, if they come with it; else None.

        It is then the recipe's ``latents.folder``.
        """
        return None


class EncoderConfig(ComponentConfig):
    """Parameters of an encoder."""

    trainable: ClassVar[bool] = False
    """Whether a stage of the run trains the encoder (it needs a ``train`` map, unless
    ``tokenizer.train_encoder`` is set)."""

    trained_with_tokenizer: ClassVar[bool] = False
    """Whether only the tokenizer's training trains it: the recipe must set
    ``tokenizer.train_encoder``."""

    has_last_layer: ClassVar[bool] = False
    """Whether the encoder has a :meth:`pae_framework.contracts.Encoder.last_layer`."""

    required_methods = frozenset({"token_grid", "token_width"})

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
        """Number of attention heads, a divisor of D; None if the encoder has none."""
        return None

    def poolings(self) -> tuple[str, ...]:
        """Ways to pool the features of an image, as ``extractor.pool`` names them.

        The first is :attr:`pae_framework.contracts.Features.pooled`; ``mean`` is the mean token.
        Others need :meth:`pae_framework.contracts.Encoder.pool`.
        """
        return ("own", "mean")

    @property
    def untrained(self) -> bool:
        """Whether its parameters ask for random weights, as ``weights: none`` does."""
        return getattr(self, "weights", None) == "none"

    def feature_maps(self) -> int | None:
        """Number of feature maps, which ``tokenizer.reconstruction.perceptual.layers`` counts.

        None if unknown before it is built. A recipe that compares a later map is rejected.
        """
        return None

    def parameters(self, image_size: int) -> int | None:
        """Number of parameters; None if unknown before it is built."""
        return None

    def frozen_parameters(self, image_size: int) -> int:
        """How many of them a training of the encoder by itself leaves frozen."""
        return 0

    def activations(self, image_size: int) -> int | None:
        """Numbers kept for the backward pass, per image; None if unknown.

        The default assumes a transformer whose blocks have one width.
        """
        parameters = self.parameters(image_size)
        if parameters is None:
            return None
        return block_activations(parameters, self.token_grid(image_size) ** 2, self.token_width())


class ModulatorConfig(ComponentConfig):
    """Parameters of a modulator, which adds pixel detail to the encoder's tokens."""

    attends: ClassVar[bool] = False
    """Whether it attends over the tokens. D must then be a multiple of its heads, and of 4."""

    replaces_tokens: ClassVar[bool] = False
    """Whether it ignores the encoder's tokens, so that the encoder cannot be trained with it."""

    keeps_tokens: ClassVar[bool] = False
    """Whether the encoder's tokens go to the bottleneck unchanged."""

    def stated_heads(self) -> int | None:
        """Number of attention heads set by its parameters; None: as many as the encoder."""
        return None

    def parameters(self, encoder: EncoderConfig, image_size: int) -> int | None:
        """Number of parameters with that encoder; None if unknown before it is built."""
        return None

    def activations(self, encoder: EncoderConfig, image_size: int) -> int | None:
        """Numbers kept for the backward pass, per image; None if unknown.

        The default assumes a transformer whose blocks are as wide as the tokens.
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
    """Whether a projector precedes and a deprojector follows it; prior refinement needs both."""

    has_moments: ClassVar[bool] = False
    """Whether its latents come with a mean and a variance."""

    standardizes: ClassVar[bool] = False
    """Whether it standardizes by statistics from before the training: the encoder must be
    frozen."""

    required_methods = frozenset({"latent_channels"})

    def latent_channels(self, token_width: int) -> int:
        """Channels of the latents made from tokens of ``token_width``.

        Raises:
            ValueError: it cannot process tokens of this width.
        """
        raise NotImplementedError

    def decoder_width(self, token_width: int) -> int:
        """Width of the tokens that the decoder gets: of the deprojector's, else the latents'."""
        return token_width if self.projects else self.latent_channels(token_width)


class DecoderConfig(ComponentConfig):
    """Parameters of a decoder."""

    required_methods = frozenset({"image_size"})

    def image_size(self, grid: int) -> int:
        """Side in px of the images decoded from ``grid`` x ``grid`` tokens."""
        raise NotImplementedError

    def parameters(self, width: int, grid: int) -> int | None:
        """Number of parameters, for width D and tokens per side; None if unknown."""
        return None

    def activations(self, grid: int) -> int | None:
        """Numbers kept for the backward pass, per image; None if unknown."""
        return None

    def check_latent(self, latent: LatentShape) -> None:
        """Reject latents whose tokens this decoder cannot process.

        Raises:
            ValueError: states what was found and what is allowed.
        """


class DiscriminatorConfig(ComponentConfig):
    """Parameters of a discriminator, for the adversarial term."""

    def check_image_size(self, image_size: int) -> None:
        """Reject image sizes that this network cannot process.

        Raises:
            ValueError: states what was found and what is allowed.
        """

    def parameters(self, image_size: int) -> int | None:
        """Number of parameters; None if unknown before it is built."""
        return None


class RegularizerConfig(ComponentConfig):
    """Parameters of one term of the tokenizer's loss."""

    needs_target: ClassVar[bool] = False
    """Whether the term needs the refined prior target: ``tokenizer.refinement`` in the recipe."""

    needs_moments: ClassVar[bool] = False
    """Whether the term needs a bottleneck with a mean and a variance (``gaussian``)."""

    needs_distance: ClassVar[bool] = False
    """Whether the term uses the distance that the reconstruction terms define."""

    number_means = "weight"

    weight: TermWeight = Field(
        1.0,
        description="weight of the term; 0: off; or a map `{from: 0, to: 0.5, steps: 400}` (or "
        "`epochs`): it changes linearly over this time",
    )

    @property
    def needs_features(self) -> bool:
        """Whether the term aligns latents with the encoder's features, which must be frozen."""
        return False

    @property
    def adapts_weight(self) -> bool:
        """Whether ``|grad of reconstruction| / |grad of the term|`` also multiplies the term.

        It must equal the regularizer's ``adaptive``. Both gradients are taken at the last layer
        before the latents. The recipe must have such a layer, in a projector or in a trained
        encoder without a modulator, and a reconstruction term.
        """
        return False

    @property
    def decodes(self) -> int:
        """Decoder passes with gradient per step, besides the reconstruction."""
        return 0

    def check_latent(self, latent: LatentShape) -> None:
        """Reject latents that this term cannot process.

        Raises:
            ValueError: states what was found and what is allowed.
        """


class GeneratorConfig(ComponentConfig):
    """Parameters of a generator."""

    @property
    def conditional(self) -> bool:
        """Whether the velocity depends on the label, as classifier-free guidance requires.

        Labels include a null label.
        """
        return True

    def stated_classes(self) -> int | None:
        """Number of classes set by the parameters; None: any number."""
        return None

    def parameters(self, latent: LatentShape, num_classes: int) -> int | None:
        """Number of parameters; None if unknown before it is built."""
        return None

    def activations(self, latent: LatentShape) -> int | None:
        """Numbers kept for the backward pass, per latent; None if unknown."""
        return None

    def check_latent(self, latent: LatentShape) -> None:
        """Reject latents that this network cannot process.

        Raises:
            ValueError: states what was found and what is allowed.
        """


class EvaluatorConfig(ComponentConfig):
    """Parameters of an evaluator."""

    @property
    def needs(self) -> frozenset[str]:
        """The inputs it needs with these parameters, from ``EVALUATION_NEEDS``.

        The engine computes each input once.
        """
        return frozenset()

    def check_images(self, count: int) -> None:
        """Reject a number of test images that is too small for these parameters.

        Raises:
            ValueError: states what was found and what is allowed.
        """

    def check_training_images(self, count: int) -> None:
        """Reject a number of training images that is too small for these parameters.

        Raises:
            ValueError: states what was found and what is allowed.
        """


class TrackerConfig(ComponentConfig):
    """Parameters of a tracker. No fingerprint includes them."""


EVALUATION_NEEDS = frozenset(
    {
        *("reconstructions", "latents", "samples", "extractor", "inception", "masks"),
        *("training_images", "train_latents"),
    }
)


def block_activations(parameters: int, tokens: int, width: int) -> int:
    """Numbers that pre-norm transformer blocks keep for the backward pass, for one image.

    Korthikanti et al. 2022 (arXiv 2205.05198, section 4.1) count 34 s b h bytes per block in half
    precision besides attention's matrices. Without dropout's masks, and with fused attention, which
    keeps no matrix, 16 numbers per token and channel are left: both norms' inputs and outputs (4),
    q, k, v and what attention gives (4), and both sides of a 4-fold GELU (8). Such a block has
    12 D^2 weights, so from ``parameters`` and D alone: 16 N D (P / 12 D^2) = 4/3 N P / D.
    """
    return 4 * tokens * parameters // (3 * width)
