"""The JSON schema of recipes, for editors: from the models and the installed components. No torch.

A recipe inherits values, so no key is required, and null removes what a parent has set. What only
whole recipes can violate, such as values that do not fit together, is left to ``pae check``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from pae_framework.config import ComponentConfig
from pae_framework.errors import PluginError
from pae_framework.recipe import components
from pae_framework.recipe.components import Component
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.shares import SHARE
from pae_framework.registry import ComponentSpec, Registry

DIALECT = "http://json-schema.org/draft-07/schema#"
"""The draft that editors' YAML servers support best."""
_REFERENCE = "#/definitions/{model}"
_SHARE = f"^{SHARE.pattern}$"
_NAME_OF_OTHER = "^[^/]+/[^/]+$"
"""``distribution/name``"""

Schema = dict[str, Any]


def recipe_schema(registry: Registry) -> Schema:
    """The schema of a recipe that uses installed components; broken ones are left out."""
    models: dict[str, Schema] = {}
    root = _of_model(Recipe, models)
    for name, component in _components().items():
        if name in models:
            models |= _of_component(name, component, registry, models)
    root["properties"] |= {
        "extends": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
            "description": "recipe whose values this one changes: a path relative to this file, or "
            "the name of a shipped recipe",
        },
        "launch": {"anyOf": [{"type": "string"}, root["properties"]["launch"]]},
    }
    section = models["TokenizerSection"]["properties"]
    section["regularizers"] |= _labeled("regularizer", registry, models)
    root["properties"]["tokenizer"] |= _section_or_component(models)
    root["properties"]["evaluate"] |= _labeled("evaluator", registry, models)
    root["properties"]["trackers"] |= _labeled("tracker", registry, models)
    return {
        "$schema": DIALECT,
        "title": "Recipe of pae-framework",
        **_partial(root),
        "definitions": {name: _partial(models[name]) for name in sorted(models)},
    }


class _Generator(GenerateJsonSchema):
    """Text that a validator reads, such as a time, may also be written as a number."""

    def function_before_schema(
        self, schema: core_schema.BeforeValidatorFunctionSchema
    ) -> JsonSchemaValue:
        inner = super().function_before_schema(schema)
        return {**inner, "type": ["string", "number"]} if inner.get("type") == "string" else inner

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """A number may stand for a map, and shares for steps; see :mod:`pae_framework.recipe`."""
        found = super().model_schema(schema)
        for key in ("keep_steps", "at_steps"):
            if key in found.get("properties", {}):
                steps = found["properties"][key]
                steps["items"] = {"anyOf": [steps["items"], {"type": "string", "pattern": _SHARE}]}
        if schema["cls"].number_means and not issubclass(schema["cls"], ComponentConfig):
            return {"anyOf": [{"type": "number"}, found]}
        return found


def _of_model(model: type[BaseModel], models: dict[str, Schema], owner: str = "") -> Schema:
    """The schema of a model; those that it refers to are added to ``models``.

    Their names are those of their classes, after ``owner``: classes of plugins may share names.
    """
    template = _REFERENCE.format(model=f"{owner}{{model}}")
    schema = model.model_json_schema(ref_template=template, schema_generator=_Generator)
    models |= {f"{owner}{name}": inner for name, inner in schema.pop("$defs", {}).items()}
    return schema


def _components() -> dict[str, type[Component[Any]]]:
    """The classes of components in recipes, by the names of their definitions."""
    found = (value for value in vars(components).values() if isinstance(value, type))
    return {
        cls.__name__.replace("[", "_").replace("]", "_"): cls
        for cls in found
        if issubclass(cls, Component) and hasattr(cls, "kind")
    }


def _of_component(
    name: str, component: type[Component[Any]], registry: Registry, models: dict[str, Schema]
) -> dict[str, Schema]:
    """Definitions of the components of a kind: one for each name, and one that selects by name.

    A component is its name, or a map with ``use`` and parameters. Without ``use``, which a parent
    may have set, only the keys of the engine are known.
    """
    engine = {key: models[name]["properties"][key] for key in component.engine_keys()}
    definitions, cases = {}, []
    for spec in registry.specs(component.kind):
        if (parameters := _parameters(spec, registry, models)) is None:
            continue
        use = registry.use_name(spec)
        earlier = models.get(_definition(spec, registry), {}).get("properties", {})
        definitions[_definition(spec, registry)] = {
            "type": "object",
            "description": spec.summary,
            # Classes of one kind, such as encoder and extractor, share the definition.
            "properties": {**earlier, **engine, "use": _use(spec, registry), **parameters},
            "additionalProperties": False,
        }
        cases.append(
            {
                "if": {"properties": {"use": {"const": use}}, "required": ["use"]},
                "then": {"$ref": _reference(_definition(spec, registry))},
            }
        )
    names = [registry.use_name(spec) for spec in registry.specs(component.kind)]
    use_of_any: Schema = {"anyOf": [{"enum": names}, {"type": "string", "pattern": _NAME_OF_OTHER}]}
    numbers: list[Schema] = [{"type": "number"}] if component.config_base().number_means else []
    definitions[name] = {
        "anyOf": [
            *numbers,
            use_of_any,
            {
                "type": "object",
                "properties": {**engine, "use": use_of_any},
                **({"allOf": cases} if cases else {}),
            },
        ]
    }
    return definitions


def _parameters(
    spec: ComponentSpec, registry: Registry, models: dict[str, Schema]
) -> Mapping[str, Schema] | None:
    """Schemas of the parameters; None if the config cannot be imported or described."""
    inner: dict[str, Schema] = {}
    try:
        schema = _of_model(spec.config_class(), inner, f"{_definition(spec, registry)}.")
    except (PluginError, PydanticUserError):  # a type that JSON schema does not know
        return None
    models |= inner
    properties: Mapping[str, Schema] = schema.get("properties", {})
    return properties


def _use(spec: ComponentSpec, registry: Registry) -> Schema:
    return {"const": registry.use_name(spec), "description": f"{spec.kind}: {spec.summary}"}


def _section_or_component(models: Mapping[str, Schema]) -> Schema:
    """The tokenizer: with ``use`` a component; without it the section, or changes to a component
    that a parent has set.
    """
    of_components = {
        key
        for name, definition in models.items()
        if name.startswith("tokenizer.")
        for key in definition.get("properties", {})
    }
    changes = {"type": "object", "propertyNames": {"enum": sorted(of_components)}}
    component, section = _reference("TokenizerComponent"), _reference("TokenizerSection")
    return {
        "anyOf": [
            {
                "if": {"type": "object", "not": {"required": ["use"]}},
                "then": {"anyOf": [{"$ref": section}, changes]},
                "else": {"$ref": component},
            }
        ]
    }


def _labeled(kind: str, registry: Registry, models: Mapping[str, Schema]) -> Schema:
    """Keys of a map of components: the label of an entry is the default of its ``use``."""
    classes = _components().items()
    name = next(name for name, cls in classes if cls.kind == kind and name in models)
    entry = {"$ref": _reference(name)}
    own_or_other = {
        registry.use_name(spec): {
            "if": {"type": "object", "not": {"required": ["use"]}},
            "then": {"$ref": _reference(_definition(spec, registry))},
            "else": {"anyOf": [entry, {"type": "null"}]},
        }
        for spec in registry.specs(kind)
        if _definition(spec, registry) in models
    }
    return {"properties": own_or_other, "additionalProperties": entry}


def _definition(spec: ComponentSpec, registry: Registry) -> str:
    return f"{spec.kind}.{registry.use_name(spec).replace('/', '.')}"


def _reference(definition: str) -> str:
    return _REFERENCE.format(model=definition)


def _partial(schema: Schema) -> Schema:
    """The schema of a part of such a value: no key is required, and each may be null."""
    kept = {key: value for key, value in schema.items() if key not in ("required", "title")}
    if "properties" in schema:
        kept["properties"] = {
            key: _nullable(value) for key, value in sorted(schema["properties"].items())
        }
    if isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = _nullable(schema["additionalProperties"])
    if "anyOf" in schema:
        kept["anyOf"] = [
            _partial(part) if "properties" in part else part for part in schema["anyOf"]
        ]
    return kept


def _nullable(schema: Schema) -> Schema:
    told: Schema = {key: schema[key] for key in ("description", "default") if key in schema}
    bare = {key: value for key, value in schema.items() if key not in (*told, "title")}
    options = bare.pop("anyOf") if bare.keys() == {"anyOf"} else [bare]
    if {"type": "null"} not in options:
        options = [*options, {"type": "null"}]
    return {"anyOf": options, **told}
