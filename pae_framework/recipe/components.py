"""``{use: name, ...parameters}``: a component as a recipe writes it, checked by its own config.

A component is an envelope (``use`` and the engine's own keys, such as ``train``) and parameters,
which are checked by the config model the registry names for it. So an error speaks of one model
only, never of a union of all, and errors of both halves come together. Needs a registry as
validation context: ``{"registry": registry}``.
"""

from __future__ import annotations

from typing import Any, ClassVar

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
    ModulatorConfig,
    RegularizerConfig,
    Settings,
)
from pae_framework.errors import PluginError
from pae_framework.flow.flow_settings import FlowSettings
from pae_framework.plugins import Registry, UnknownComponentError
from pae_framework.training.train_settings import TrainSettings

CONFIG = "<config>"
"""What the ``config`` field is called while validating, so that no key of a recipe is meant."""


class Component(Settings):
    """Base of all kinds: which component, and its parameters (``config``)."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    kind: ClassVar[str]
    base: ClassVar[type[ComponentConfig]]

    use: str
    config: SerializeAsAny[ComponentConfig] = Field(validation_alias=CONFIG)

    @classmethod
    def envelope(cls) -> frozenset[str]:
        """Keys beside the component's parameters that are the engine's own."""
        return frozenset(cls.model_fields) - {"config"}

    @model_validator(mode="before")
    @classmethod
    def _split(cls, data: Any) -> Any:
        """Part the engine's keys from the component's, which go to ``config`` as a whole."""
        if isinstance(data, str):
            data = {"use": data}
        if not isinstance(data, dict):
            raise PydanticCustomError(
                "component", "expected `use: <{kind}>` with its parameters", {"kind": cls.kind}
            )
        if isinstance(data.get("config"), ComponentConfig):
            return data
        own = cls.envelope()
        parameters = {key: value for key, value in data.items() if key not in own}
        return {**{key: data[key] for key in own if key in data}, CONFIG: parameters}

    @field_validator("use")
    @classmethod
    def _registered(cls, use: str, info: ValidationInfo) -> str:
        cls._config_model(use, info)
        return use

    @field_validator("config", mode="plain")
    @classmethod
    def _of_that_component(cls, parameters: Any, info: ValidationInfo) -> ComponentConfig:
        if isinstance(parameters, ComponentConfig):
            return parameters
        if "use" not in info.data:  # it is missing or unknown, which is reported already
            return cls.base()
        # A ValidationError raised here is merged into the outer one, with the key path prefixed.
        return cls._config_model(info.data["use"], info).model_validate(
            parameters, context=info.context
        )

    @classmethod
    def _config_model(cls, use: str, info: ValidationInfo) -> type[ComponentConfig]:
        registry: Registry = (info.context or {})["registry"]
        try:
            return registry.config_class(cls.kind, use, cls.base)
        except UnknownComponentError as error:
            raise PydanticCustomError("unknown_component", "{text}", {"text": str(error)}) from None
        except PluginError as error:
            raise PydanticCustomError("broken_plugin", "{text}", {"text": str(error)}) from None

    @model_serializer(mode="plain")
    def _flat(self) -> dict[str, Any]:
        own = {
            key: getattr(self, key)
            for key in type(self).model_fields
            if key not in ("use", "config")
        }
        dumped = {
            key: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
            for key, value in own.items()
        }
        return {"use": self.use, **self.config.model_dump(mode="json"), **dumped}


class DataSourceComponent(Component):
    """A data source."""

    kind = "dataset"
    base = DataSourceConfig
    config: SerializeAsAny[DataSourceConfig] = Field(validation_alias=CONFIG)


class EncoderComponent(Component):
    """An encoder; with ``train``, one that a stage of the run trains first."""

    kind = "encoder"
    base = EncoderConfig
    config: SerializeAsAny[EncoderConfig] = Field(validation_alias=CONFIG)
    train: TrainSettings | None = None


class ModulatorComponent(Component):
    """A modulator."""

    kind = "modulator"
    base = ModulatorConfig
    config: SerializeAsAny[ModulatorConfig] = Field(validation_alias=CONFIG)


class BottleneckComponent(Component):
    """A bottleneck."""

    kind = "bottleneck"
    base = BottleneckConfig
    config: SerializeAsAny[BottleneckConfig] = Field(validation_alias=CONFIG)


class DecoderComponent(Component):
    """A decoder."""

    kind = "decoder"
    base = DecoderConfig
    config: SerializeAsAny[DecoderConfig] = Field(validation_alias=CONFIG)


class DiscriminatorComponent(Component):
    """A discriminator."""

    kind = "discriminator"
    base = DiscriminatorConfig
    config: SerializeAsAny[DiscriminatorConfig] = Field(validation_alias=CONFIG)


class RegularizerComponent(Component):
    """A regularizer."""

    kind = "regularizer"
    base = RegularizerConfig
    config: SerializeAsAny[RegularizerConfig] = Field(validation_alias=CONFIG)


class GeneratorComponent(Component):
    """A generator with its objective and its training."""

    kind = "generator"
    base = GeneratorConfig
    config: SerializeAsAny[GeneratorConfig] = Field(validation_alias=CONFIG)
    objective: FlowSettings = FlowSettings()
    weights: str | None = Field(
        None,
        description="file of a trained generator, ours or an official one: loaded, not trained",
    )
    train: TrainSettings


class EvaluatorComponent(Component):
    """An evaluator."""

    kind = "evaluator"
    base = EvaluatorConfig
    config: SerializeAsAny[EvaluatorConfig] = Field(validation_alias=CONFIG)
