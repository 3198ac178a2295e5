"""``{use: name, ...parameters}``: a component as a recipe writes it, checked by its own config.

Validation has two steps: the envelope (``use`` and the engine's own keys, such as ``train``), then
the config model the registry names for that component. So an error speaks of one model only, never
of a union of all. Needs a registry as validation context: ``{"registry": registry}``.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import (
    BaseModel,
    SerializeAsAny,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pae_framework.config import (
    BottleneckConfig,
    ComponentConfig,
    DataSourceConfig,
    DecoderConfig,
    EncoderConfig,
    EvaluatorConfig,
    GeneratorConfig,
    ModulatorConfig,
    RegularizerConfig,
    Settings,
)
from pae_framework.errors import PluginError
from pae_framework.plugins import Registry, UnknownComponent
from pae_framework.settings import FlowSettings, TrainSettings


class Component(Settings):
    """Base of all kinds: which component, and its parameters (``config``)."""

    kind: ClassVar[str]
    base: ClassVar[type[ComponentConfig]]

    use: str
    config: SerializeAsAny[ComponentConfig]

    @model_validator(mode="before")
    @classmethod
    def _split(cls, data: Any, info: ValidationInfo) -> Any:
        if isinstance(data, str):
            data = {"use": data}
        if not isinstance(data, dict):
            raise PydanticCustomError(
                "component", "expected `use: <{kind}>` with its parameters", {"kind": cls.kind}
            )
        if "config" in data and isinstance(data["config"], BaseModel):
            return data
        if not isinstance(data.get("use"), str):
            raise PydanticCustomError(
                "component", "says no `use: <name of the {kind}>`", {"kind": cls.kind}
            )
        own = {key for key in cls.model_fields if key != "config"}
        parameters = {key: value for key, value in data.items() if key not in own}
        envelope = {key: value for key, value in data.items() if key in own}
        model = cls._config_model((info.context or {})["registry"], data["use"])
        # A ValidationError raised here is merged into the outer one, with the key path prefixed.
        return {**envelope, "config": model.model_validate(parameters, context=info.context)}

    @classmethod
    def _config_model(cls, registry: Registry, name: str) -> type[ComponentConfig]:
        try:
            model = registry.find(cls.kind, name).config_class()
        except UnknownComponent as error:
            raise PydanticCustomError("unknown_component", "{text}", {"text": str(error)}) from None
        except PluginError as error:
            raise PydanticCustomError("broken_plugin", "{text}", {"text": str(error)}) from None
        if not issubclass(model, cls.base):
            raise PydanticCustomError(
                "broken_plugin",
                "{text}",
                {"text": f"the config of {cls.kind} {name!r} is not a {cls.base.__name__}"},
            )
        return model

    @model_serializer(mode="plain")
    def _flat(self) -> dict[str, Any]:
        own = {
            key: getattr(self, key) for key in type(self).model_fields if key not in ("use", "config")
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
    config: SerializeAsAny[DataSourceConfig]


class EncoderComponent(Component):
    """An encoder; with ``train``, one that a stage of the run trains first."""

    kind = "encoder"
    base = EncoderConfig
    config: SerializeAsAny[EncoderConfig]
    train: TrainSettings | None = None


class ModulatorComponent(Component):
    """A modulator."""

    kind = "modulator"
    base = ModulatorConfig
    config: SerializeAsAny[ModulatorConfig]


class BottleneckComponent(Component):
    """A bottleneck."""

    kind = "bottleneck"
    base = BottleneckConfig
    config: SerializeAsAny[BottleneckConfig]


class DecoderComponent(Component):
    """A decoder."""

    kind = "decoder"
    base = DecoderConfig
    config: SerializeAsAny[DecoderConfig]


class RegularizerComponent(Component):
    """A regularizer."""

    kind = "regularizer"
    base = RegularizerConfig
    config: SerializeAsAny[RegularizerConfig]


class GeneratorComponent(Component):
    """A generator with its objective and its training."""

    kind = "generator"
    base = GeneratorConfig
    config: SerializeAsAny[GeneratorConfig]
    objective: FlowSettings = FlowSettings()
    train: TrainSettings


class EvaluatorComponent(Component):
    """An evaluator."""

    kind = "evaluator"
    base = EvaluatorConfig
    config: SerializeAsAny[EvaluatorConfig]
