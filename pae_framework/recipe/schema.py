"""The schema of a recipe by key path, derived from the pydantic models. No torch."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pae_framework.errors import PluginError
from pae_framework.recipe.components import Component
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath, Node
from pae_framework.recipe.profile_settings import Profile
from pae_framework.registry import Registry, UnknownComponentError


@dataclass(frozen=True)
class SchemaNode:
    """The schema of the value at one key path."""

    type: Any = None
    """Model class or other type of the value; None if unknown."""
    nullable: bool = False
    """Whether null is a valid value."""
    declared: bool = True
    """Whether the key exists in the models; if not, it is an error."""
    label: str | None = None
    """Label of an entry of a map such as ``evaluate``: the default of its ``use``."""
    either: tuple[type[BaseModel], type[Component[Any]]] | None = None
    """Section and component, where both are valid; ``type`` is then one of them."""
    number: bool = False
    """Whether a number is valid, too, where ``type`` is a model."""

    def of(self, node: Node | None) -> SchemaNode:
        """The schema of this very value: a component if it names one, where both are valid."""
        if self.either is None or node is None:
            return self
        section, component = self.either
        return replace(self, type=component if node.names_component else section)

    @property
    def component(self) -> type[Component[Any]] | None:
        """The component class expected here, or None if the value is not a component."""
        if isinstance(self.type, type) and issubclass(self.type, Component):
            return self.type
        return None

    def short_key(self, value: object) -> str | None:
        """The key that a text or number in place of the map stands for; None if there is none."""
        component = self.component
        if isinstance(value, str):
            return "use" if component else "extends" if self.type is Profile else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        model = component.config_base() if component else self.type
        means: str | None = getattr(model, "number_means", None)
        return means

    def use(self, node: Node) -> str | None:
        """Name of the component at ``node``: its ``use``, its short form (a string) or label."""
        value = node.value
        written = value if isinstance(value, str) else None
        if isinstance(value, dict) and "use" in value and isinstance(value["use"].value, str):
            written = value["use"].value
        return written or self.label

    def keys(self, node: Node, registry: Registry | None) -> Mapping[str, FieldInfo] | None:
        """Fields of the map at ``node``; None if any key is allowed or the fields are unknown."""
        component = self.component
        if component is not None:
            own = {k: f for k, f in component.model_fields.items() if k != "config"}
            parameters = _parameters(component, self.use(node), registry)
            return None if parameters is None else {**own, **parameters}
        if isinstance(self.type, type) and issubclass(self.type, BaseModel):
            return self.type.model_fields
        return None

    def enter(self, key: str | int, node: Node, registry: Registry | None) -> SchemaNode:
        """The schema of an entry of the map or list at ``node``."""
        component = self.component
        if component is not None and key in component.engine_keys():
            return _schema_of(component.model_fields[str(key)].annotation)
        fields = self.keys(node, registry)
        if fields is None and component is not None:  # every component has the keys of the base
            fields = component.config_base().model_fields
            if str(key) not in fields:
                return SchemaNode()
        if fields is not None:
            field = fields.get(str(key))
            if field is None:
                return SchemaNode(declared=False)
            return _schema_of(field.annotation).of(node.child(key))
        if get_origin(self.type) is dict:
            entry = _schema_of(get_args(self.type)[1])
            return SchemaNode(
                entry.type, entry.nullable, label=str(key) if entry.component else None
            )
        return SchemaNode()


RECIPE = SchemaNode(Recipe)
PROFILE = SchemaNode(Profile)


def schema_at(
    root: Node, path: KeyPath, registry: Registry | None, schema: SchemaNode = RECIPE
) -> tuple[SchemaNode, Node]:
    """The schema at a key path below ``schema``, and the node there or its nearest ancestor."""
    node = root
    for key in path:
        schema = schema.enter(key, node, registry)
        node = node.child(key) or node
    return schema, node


def accepts(field: FieldInfo, value: float | bool) -> bool:
    """Whether a field takes a number or boolean like ``value``; its limits are not checked."""
    kind = _schema_of(field.annotation).type
    if isinstance(value, bool):
        return kind is bool
    return kind is float or (kind is int and isinstance(value, int))


def named_settings(schema: SchemaNode, key: str) -> Iterator[KeyPath]:
    """Key paths that end in ``key``, in the sections and components that ``schema`` declares.

    Parameters of components are left out.
    """
    component = schema.component
    is_model = isinstance(schema.type, type) and issubclass(schema.type, BaseModel)
    fields = schema.type.model_fields if is_model else {}
    own = component.engine_keys() if component is not None else frozenset(fields)
    for name in fields:
        if name in own and name == key:
            yield (name,)
        elif name in own:
            inner = named_settings(_schema_of(fields[name].annotation), key)
            yield from ((name, *path) for path in inner)


def _schema_of(annotation: Any) -> SchemaNode:
    if get_origin(annotation) is Annotated:
        return _schema_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        nullable = len(kinds) < len(get_args(annotation))
        if len(kinds) == 1:
            return SchemaNode(_schema_of(kinds[0]).type, nullable)
        return _either(kinds, nullable)
    return SchemaNode(annotation, nullable=annotation is Any or annotation is type(None))


def _either(kinds: list[Any], nullable: bool) -> SchemaNode:
    """Of a union: known if it is of a component and a section, as for the tokenizer, or of a number
    and a section, as for a weight with a schedule."""
    kinds = [_schema_of(kind).type for kind in kinds]
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    if len(kinds) == 2 and len(models) == 1 and float in kinds:
        return SchemaNode(models[0], nullable, number=True)
    components = [model for model in models if issubclass(model, Component)]
    if len(kinds) == len(models) == 2 and len(components) == 1:
        (section,) = (model for model in models if model not in components)
        return SchemaNode(section, nullable, either=(section, components[0]))
    return SchemaNode(None, nullable)


def _parameters(
    component: type[Component[Any]], use: str | None, registry: Registry | None
) -> Mapping[str, FieldInfo] | None:
    """Fields of the component's config; None if the component is unknown."""
    if use is None or registry is None:
        return None
    try:
        fields: Mapping[str, FieldInfo] = component.config_class(use, registry).model_fields
    except (UnknownComponentError, PluginError):
        return None
    return fields
