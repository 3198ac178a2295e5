"""A component in a recipe: ``{use: name, ...parameters}``. No torch.

``use`` and the keys of the engine, such as ``train``, are fields of :class:`Component`. All other
keys are parameters of the component. The config model that is registered for the component
validates them, so an error refers to one model, never to a union of all models. Errors in both
groups of keys are reported together. Validation needs the registry as its context:
``{"registry": registry}``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Generic, Literal, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pae_framework.config import (
    BottleneckConfig,
    ComponentConfig,
    DataSourceConfig,
    DecoderConfig,
    DiscriminatorConfig,
    EncoderConfig,
    EvaluatorConfig,
    GeneratorConfig,
    LatentShape,
    Length,
    ModulatorConfig,
    PathText,
    RegularizerConfig,
    Settings,
    TokenizerConfig,
    TrackerConfig,
    WeightSchedule,
)
from pae_framework.data.data_settings import ResizeSettings
from pae_framework.errors import PluginError
from pae_framework.flow.flow_settings import FlowSettings
from pae_framework.kinds import KINDS
from pae_framework.registry import Registry, UnknownComponentError
from pae_framework.tokenizer.tokenizer_settings import LpipsNetwork
from pae_framework.training.train_settings import TrainSettings

CONFIG = "<config>"
"""Alias of the ``config`` field in validation; no recipe key can have this name."""

C = TypeVar("C", bound=ComponentConfig)


class Component(Settings, Generic[C]):
    """Which component to use, and its parameters (``config``).

    ``Component[EncoderConfig]`` is an encoder: the base class of its config determines the kind.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    use: str
    config: SerializeAsAny[C] = Field(validation_alias=CONFIG)

    hashed_if_set: ClassVar[frozenset[str]] = frozenset()
    """Keys of the engine that fingerprints leave out if they are null."""
    kind: ClassVar[str]
    """Name in :data:`~pae_framework.kinds.KINDS`."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        name = cls.config_base().__name__
        cls.kind = next(kind.name for kind in KINDS.values() if kind.config == name)

    @classmethod
    def config_base(cls) -> type[C]:
        """The base class of the component's config: the argument in ``Component[...]``."""
        return cast(type[C], cls.model_fields["config"].annotation)

    @classmethod
    def engine_keys(cls) -> frozenset[str]:
        """Keys that are not parameters of the component, such as ``use`` and ``train``."""
        return frozenset(cls.model_fields) - {"config"}

    @classmethod
    def config_class(cls, use: str, registry: Registry) -> type[C]:
        """Import the config model of the component named ``use``.

        Raises:
            UnknownComponentError: no component of this kind has that name.
            PluginError: the config model cannot be imported or used.
        """
        return cast(type[C], registry.find(cls.kind, use).config_class())

    @model_validator(mode="before")
    @classmethod
    def _separate_parameters(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"use": data}
        if not isinstance(data, dict):
            raise PydanticCustomError(
                "component", "expected `use: <{kind}>` with its parameters", {"kind": cls.kind}
            )
        if isinstance(data.get("config"), ComponentConfig):
            return data
        own = cls.engine_keys()
        parameters = {key: value for key, value in data.items() if key not in own}
        return {**{key: data[key] for key in own if key in data}, CONFIG: parameters}

    @field_validator("use")
    @classmethod
    def _check_registered(cls, use: str, info: ValidationInfo) -> str:
        cls._find_config_class(use, info)
        return use

    @field_validator("config", mode="plain")
    @classmethod
    def _validate_parameters(cls, parameters: Any, info: ValidationInfo) -> ComponentConfig:
        if isinstance(parameters, ComponentConfig):
            return parameters
        if "use" not in info.data:  # missing or unknown: already reported
            return cls.config_base()()
        # A ValidationError raised here is merged into the outer one, with the key path prefixed.
        return cls._find_config_class(info.data["use"], info).model_validate(
            parameters, context=info.context
        )

    @classmethod
    def _find_config_class(cls, use: str, info: ValidationInfo) -> type[C]:
        try:
            return cls.config_class(use, (info.context or {})["registry"])
        except (UnknownComponentError, PluginError) as error:
            unknown = isinstance(error, UnknownComponentError)
            kind = "unknown_component" if unknown else "broken_plugin"
            raise PydanticCustomError(kind, "{text}", {"text": str(error)}) from None

    @model_serializer(mode="plain")
    def _serialize_flat(self) -> dict[str, Any]:
        fields = dict(self)
        parameters = fields.pop("config").model_dump(mode="json")
        dumped = {
            key: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
            for key, value in fields.items()
        }
        return {"use": dumped.pop("use"), **parameters, **dumped}


def active_components(section: Any) -> Iterator[Component[Any]]:
    """Every component of a recipe or section that is used: its weight, if it has one, is not 0."""
    if isinstance(section, dict):
        for entry in section.values():
            yield from active_components(entry)
    elif isinstance(section, Settings) and getattr(section, "weight", None) != 0:
        if isinstance(section, Component):
            if getattr(section.config, "weight", None) == 0:
                return
            yield section
        yield from active_components(dict(section))


def require_targets(section: Any, registry: Registry) -> None:
    """Check that the class of every active component can exist, without importing it.

    Raises:
        PluginError: one cannot; says which, and why.
    """
    specs = [registry.find(found.kind, found.use) for found in active_components(section)]
    problems = [problem for spec in specs if (problem := spec.target_problem()) is not None]
    if problems:
        raise PluginError("\n".join(dict.fromkeys(problems)))


DataSourceComponent = Component[DataSourceConfig]
ModulatorComponent = Component[ModulatorConfig]
BottleneckComponent = Component[BottleneckConfig]
DecoderComponent = Component[DecoderConfig]
DiscriminatorComponent = Component[DiscriminatorConfig]
EvaluatorComponent = Component[EvaluatorConfig]
TrackerComponent = Component[TrackerConfig]


GuideComponent = Component[GeneratorConfig]
"""A generator with its parameters alone, such as one whose weights are in a file."""


class RegularizerComponent(Component[RegularizerConfig]):
    """A term of the tokenizer's loss; its weight may come in late and change."""

    hashed_if_set = frozenset({"start"})
    former_keys = frozenset({"warmup"})

    start: Length | None = Field(
        None, description="when the term is added to the loss; null: from the first step on"
    )

    @property
    def schedule(self) -> WeightSchedule | None:
        """How the weight changes after ``start``; None: it is constant."""
        weight = self.config.weight
        return weight if isinstance(weight, WeightSchedule) else None


class EncoderComponent(Component[EncoderConfig]):
    """An encoder; with ``train``, a stage of the run trains it first."""

    train: TrainSettings | None = None

    def image_size(self, image_size: int) -> int:
        """Side in px of the images that it is given, of images of ``image_size`` px."""
        return image_size


class TeacherComponent(EncoderComponent):
    """An encoder, pretrained or trained first, whose features regularizers use."""

    preprocessing: Literal["own", "signed"] = Field(
        "own",
        description="own: the encoder's; signed: images in [-1, 1], resized bilinearly to the side "
        "of its input (VA-VAE)",
    )


class ExtractorComponent(EncoderComponent):
    """An encoder used only for evaluation: Frechet distances are in its pooled features."""

    hashed_if_set = frozenset({"pool", "resize"})

    pool: str | None = Field(
        None,
        description="how the features of an image become one vector, such as `mean`, over the "
        "tokens, or `cls`, the class token; null: the first that the encoder offers",
    )
    resize: ResizeSettings | None = Field(
        None,
        description="how images are resized before the encoder's own preprocessing; null: they are "
        "not; only for pretrained encoders",
    )

    def image_size(self, image_size: int) -> int:
        """The side that images are resized to, if they are."""
        return image_size if self.resize is None else self.resize.side

    @property
    def pooling(self) -> str:
        """How features are pooled."""
        return self.pool or self.config.poolings()[0]


class TokenizerComponent(Component[TokenizerConfig]):
    """A trained tokenizer that is one component, in place of the sections of a composed one."""

    hashed_if_set = frozenset({"lpips"})

    lpips: LpipsNetwork | None = Field(
        None, description="perceptual distance of the evaluation; null: it has none"
    )

    def latent_shape(self, image_size: int) -> LatentShape:
        """Shape (C, h, w) of the latents of images of ``image_size`` px."""
        return self.config.latent_shape(image_size)

    @property
    def encodes(self) -> bool:
        """Whether it turns images into latents."""
        return self.config.encodes

    @property
    def decodes(self) -> bool:
        """Whether it turns latents into images."""
        return self.config.decodes

    @property
    def perceptual(self) -> LpipsNetwork | None:
        """The perceptual distance of the evaluation, if there is one."""
        return self.lpips


class GeneratorComponent(Component[GeneratorConfig]):
    """A generator, its objective and its training."""

    objective: FlowSettings = FlowSettings()
    weights: PathText | None = Field(
        None,
        description="weights file of a trained generator, from this project or a release; it is "
        "then loaded, not trained",
    )
    train: TrainSettings
