"""What may stand at a key path of a recipe: read off the models, so there is no second list."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pae_framework.errors import PluginError
from pae_framework.plugins import Registry, UnknownComponentError
from pae_framework.recipe.components import Component
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath, Node


@dataclass(frozen=True)
class SchemaNode:
    """A place in a recipe and what the models say about it."""

    type: Any = None
    """Model class or type of the value; None where the models cannot say."""
    nullable: bool = False
    """Whether null is one of its values."""
    declared: bool = True
    """Whether the models know this key (False: it is a mistake)."""
    label: str | None = None
    """The key of a map of labelled components; it names the component where ``use`` does not."""

    @property
    def component(self) -> type[Component[Any]] | None:
        """The component class expected here, or None where another thing is."""
        if isinstance(self.type, type) and issubclass(self.type, Component):
            return self.type
        return None

    def use(self, node: Node) -> str | None:
        """The component's name as written at ``node``, in whichever of the three ways."""
        value = node.value
        written = value if isinstance(value, str) else None
        if isinstance(value, dict) and "use" in value and isinstance(value["use"].value, str):
            written = value["use"].value
        return written or self.label

    def keys(self, node: Node, registry: Registry | None) -> Mapping[str, FieldInfo] | None:
        """The fields of the map at ``node``; None where any key, or nothing known, may stand."""
        component = self.component
        if component is not None:
            own = {k: f for k, f in component.model_fields.items() if k != "config"}
            parameters = _parameters(component, self.use(node), registry)
            return None if parameters is None else {**own, **parameters}
        if isinstance(self.type, type) and issubclass(self.type, BaseModel):
            return self.type.model_fields
        return None

    def enter(self, key: str | int, node: Node, registry: Registry | None) -> SchemaNode:
        """The slot of an entry of the map or list at ``node``."""
        component = self.component
        if component is not None and key in component.engine_keys():
            return _slot(component.model_fields[str(key)].annotation)
        fields = self.keys(node, registry)
        if fields is not None:
            field = fields.get(str(key))
            return SchemaNode(declared=False) if field is None else _slot(field.annotation)
        if get_origin(self.type) is dict:
            entry = _slot(get_args(self.type)[1])
            return SchemaNode(
                entry.type, entry.nullable, label=str(key) if entry.component else None
            )
        return SchemaNode()


RECIPE = SchemaNode(Recipe)


def slot_at(root: Node, path: KeyPath, registry: Registry) -> tuple[SchemaNode, Node]:
    """The slot at a key path, and the node there or, past what was written, its last ancestor."""
    slot, node = RECIPE, root
    for key in path:
        slot = slot.enter(key, node, registry)
        node = node.child(key) or node
    return slot, node


def _slot(annotation: Any) -> SchemaNode:
    if get_origin(annotation) is Annotated:
        return _slot(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        nullable = len(kinds) < len(get_args(annotation))
        return SchemaNode(_slot(kinds[0]).type if len(kinds) == 1 else None, nullable)
    return SchemaNode(annotation, nullable=annotation is Any or annotation is type(None))


def _parameters(
    component: type[Component[Any]], use: str | None, registry: Registry | None
) -> Mapping[str, FieldInfo] | None:
    """The parameters of a component; None where it is not known."""
    if use is None or registry is None:
        return None
    try:
        fields: Mapping[str, FieldInfo] = component.config_class(use, registry).model_fields
    except (UnknownComponentError, PluginError):
        return None
    return fields
