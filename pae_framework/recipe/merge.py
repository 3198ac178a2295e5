"""Merges recipes: for ``extends``, command-line overrides and sweep variants. No torch.

Maps are merged key by key, other values are replaced, and null removes a key. In detail:

- An override (``key.path=value``) is an assignment: a map replaces the earlier map.
- If null is a valid value of a setting (``clip: null``: no clipping), the setting becomes null.
- If a layer changes ``use``, the parameters of the earlier component are dropped. Keys of the
  engine (``train``, ``objective``) are kept.
- A map in place of a number, such as the schedule of a weight, replaces an earlier map as a whole.
- A component in place of a section, or a whole section in place of a component, drops the other's
  keys.
"""

from __future__ import annotations

from dataclasses import replace

from pae_framework.recipe.nodes import MAX_DEPTH, Node, at_path
from pae_framework.recipe.schema import RECIPE, SchemaNode
from pae_framework.recipe.suggestions import describe
from pae_framework.registry import Registry


def merge(base: Node, layer: Node, schema: SchemaNode = RECIPE) -> Node:
    """Merge ``layer`` into ``base``; call :func:`resolve_removals` after the last layer."""
    return _merge(base, layer, schema)


def override(key_path: str, value: Node) -> Node:
    """The layer of one assignment ``key.path=value``.

    A map replaces the earlier value. Null removes it and has no effect if there is none.

    Raises:
        ValueError: a key of the path is empty, or there are too many.
    """
    keys = key_path.split(".")
    if not all(keys):
        raise ValueError(f"{describe(key_path)} is not a key path such as `generator.train.steps`")
    if len(keys) > MAX_DEPTH:
        raise ValueError(f"{describe(key_path)} is nested too deeply: {len(keys)} keys")
    return at_path(keys, replace(value, removes=value.value is None, replaces=True))


def _merge(base: Node, layer: Node, schema: SchemaNode) -> Node:
    if layer.value is None:
        return replace(layer, removes=True)
    is_number = isinstance(layer.value, int | float)
    if layer.replaces and not (is_number and schema.short_key(layer.value)):
        return layer
    if schema.number and not any(entry.replaces for entry in (layer.map or {}).values()):
        return layer
    if schema.either is not None:
        base, layer, schema = _component_or_section(base, layer, schema)
    if schema.component is not None:
        base, layer = _drop_other_parameters(base, layer, schema)
    base, layer = long_form(base, schema), long_form(layer, schema)
    if base.map is None or layer.map is None:
        return layer
    entries = dict(base.map)
    for key, node in layer.map.items():
        earlier = entries.get(key)
        inner = schema.enter(key, base, None)
        entries[key] = node if earlier is None else _merge(earlier, node, inner)
    return replace(layer, value=entries)


def _component_or_section(
    base: Node, layer: Node, schema: SchemaNode
) -> tuple[Node, Node, SchemaNode]:
    """Both, and their common schema; if the layer changes it, the base without its keys.

    The layer is a component if it names one, and a section if it has all required keys of one or
    takes ``use`` away. Else it changes what the base is.
    """
    assert schema.either is not None
    section, component = schema.either
    required = {key for key, field in section.model_fields.items() if field.is_required()}
    keys = layer.map or {}
    if layer.names_component:
        return base, layer, replace(schema, type=component)
    if not base.names_component or not ("use" in keys or required <= keys.keys()):
        return base, layer, schema.of(base)
    layer = replace(layer, value={key: node for key, node in keys.items() if key != "use"})
    return replace(base, value={}), layer, replace(schema, type=section)


def _drop_other_parameters(base: Node, layer: Node, schema: SchemaNode) -> tuple[Node, Node]:
    """Both; if the layer changes the component, the base without its parameters."""
    assert schema.component is not None
    before, after = schema.use(base), schema.use(layer)
    renamed = _names_component(layer) and before != after
    if renamed and base.map is not None:
        own = schema.component.engine_keys()
        base = replace(base, value={key: node for key, node in base.map.items() if key in own})
    return base, layer


def _names_component(node: Node) -> bool:
    return isinstance(node.value, str) or (node.map is not None and "use" in node.map)


def long_form(node: Node, schema: SchemaNode) -> Node:
    """``{use: name}`` or ``{weight: number}`` for the short form, a text or a number."""
    if (key := schema.short_key(node.value)) is None:
        return node
    return replace(node, value={key: node}, replaces=False)


def resolve_removals(root: Node, registry: Registry | None, schema: SchemaNode = RECIPE) -> Node:
    """Delete the keys that layers removed, and write numbers in place of maps as maps.

    A null is kept if it is a valid value of its setting. It is also kept at an unknown key, so that
    validation reports the key.
    """
    return _remove(root, schema, registry)


def _remove(node: Node, schema: SchemaNode, registry: Registry | None) -> Node:
    if not isinstance(node.value, str):  # validation reads the name of a component as it is
        node = long_form(node, schema)
    if node.map is None:
        return node
    entries: dict[str, Node] = {}
    for key, child in node.map.items():
        inner = schema.enter(key, node, registry)
        if child.removes and inner.declared and not inner.nullable:
            continue
        entries[key] = _remove(child, inner, registry)
    return replace(node, value=entries)
