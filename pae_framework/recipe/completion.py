"""Shell completion of ``key.path=value`` overrides. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.nodes import Node
from pae_framework.recipe.schema import SchemaNode, schema_at
from pae_framework.registry import Registry


def completions(loaded: LoadedRecipe, incomplete: str) -> list[str]:
    """Completions of ``incomplete``: keys before the ``=``, known values after it."""
    key_path, equals, value = incomplete.partition("=")
    *parents, last = key_path.split(".")
    schema, node = schema_at(loaded.root, tuple(parents), loaded.registry)
    if equals:
        choices = [str(choice) for choice in _values(schema, node, last, loaded.registry)]
        return [f"{key_path}={choice}" for choice in choices if choice.startswith(value)]
    before = "".join(f"{parent}." for parent in parents)
    return [
        f"{before}{key}{suffix}"
        for key in _keys(schema, node, loaded.registry)
        if key.startswith(last)
        for suffix in _suffixes(schema.enter(key, node, loaded.registry))
    ]


def _keys(schema: SchemaNode, node: Node, registry: Registry) -> Iterable[str]:
    fields = schema.keys(node, registry)
    if fields is not None:
        return fields
    return (node.map or {}) if get_origin(schema.type) is dict else ()


def _suffixes(schema: SchemaNode) -> str:
    """A dot if the value is a map, an equals sign if it is none, and both if it may be either."""
    kind = schema.type
    is_map = isinstance(kind, type) and issubclass(kind, BaseModel)
    return "=." if schema.number else "." if is_map or get_origin(kind) is dict else "="


def _values(schema: SchemaNode, node: Node, key: str, registry: Registry) -> Iterable[Any]:
    if key == "use" and schema.component is not None:
        return [registry.use_name(spec) for spec in registry.specs(schema.component.kind)]
    fields: Mapping[str, FieldInfo] = schema.keys(node, registry) or {}
    if key not in fields:
        return []
    field = fields[key]
    return [*_choices(field.annotation), *(field.examples or [])]


def _choices(annotation: Any) -> list[str]:
    """All values of a type, if it has few; otherwise none."""
    if annotation is bool:
        return ["true", "false"]
    if annotation is type(None):
        return ["null"]
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    if get_origin(annotation) is Annotated:
        return _choices(get_args(annotation)[0])
    if get_origin(annotation) in (list, tuple, dict):
        return []
    return [choice for part in get_args(annotation) for choice in _choices(part)]
