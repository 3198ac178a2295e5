"""Lays one recipe over another: ``extends``, command-line overrides and sweep variants alike.

Maps merge, everything else is replaced, null removes a key. What that means:

- An override (``key.path=value``) is an assignment: a map it gives replaces the one that was there.
- Where null is itself a value of the setting (``clip: null``: no clipping), it is set, not removed.
- A layer that changes ``use:`` drops the parameters of the component that was there before; the
  engine's own keys beside them (``train``, ``objective``) stay.
"""

from __future__ import annotations

from dataclasses import replace

from pae_framework.plugins import Registry
from pae_framework.recipe.nodes import Node, at_path
from pae_framework.recipe.schema import RECIPE, SchemaNode


def merge(base: Node, layer: Node) -> Node:
    """``base`` with ``layer`` laid over it; call :func:`resolve_removals` after the last layer."""
    return _merge(base, layer, RECIPE)


def override(key_path: str, value: Node) -> Node:
    """The layer of one assignment ``key.path=value``.

    A map replaces what was there; a null removes it, and is nothing where nothing was.

    Raises:
        ValueError: the key path has an empty part.
    """
    keys = key_path.split(".")
    if not all(keys):
        raise ValueError(f"{key_path!r} is not a key path such as `generator.train.steps`")
    return at_path(keys, replace(value, removes=value.value is None, replaces=True))


def _merge(base: Node, layer: Node, slot: SchemaNode) -> Node:
    if layer.value is None:
        return replace(layer, removes=True)
    if layer.replaces:
        return layer
    if slot.component is not None:
        base, layer = _same_component(base, layer, slot)
    if base.map is None or layer.map is None:
        return layer
    entries = dict(base.map)
    for key, node in layer.map.items():
        under = entries.get(key)
        entries[key] = node if under is None else _merge(under, node, slot.enter(key, base, None))
    return replace(layer, value=entries)


def _same_component(base: Node, layer: Node, slot: SchemaNode) -> tuple[Node, Node]:
    """Both as maps, the base without parameters that belong to another component."""
    assert slot.component is not None
    before, after = slot.use(base), slot.use(layer)
    renamed = _names_component(layer) and before != after
    base, layer = _long_form(base), _long_form(layer)
    if renamed and base.map is not None:
        own = slot.component.engine_keys()
        base = replace(base, value={key: node for key, node in base.map.items() if key in own})
    return base, layer


def _names_component(node: Node) -> bool:
    return isinstance(node.value, str) or (node.map is not None and "use" in node.map)


def _long_form(node: Node) -> Node:
    """``{use: name}`` for the short form ``name``."""
    if isinstance(node.value, str):
        return replace(node, value={"use": node})
    return node


def resolve_removals(root: Node, registry: Registry) -> Node:
    """Take out what layers removed; a null that is a value of its setting stays.

    A null over a key the models do not know stays too, for validation to refuse the key.
    """
    return _settle(root, RECIPE, registry)


def _settle(node: Node, slot: SchemaNode, registry: Registry) -> Node:
    if node.map is None:
        return node
    entries: dict[str, Node] = {}
    for key, child in node.map.items():
        inner = slot.enter(key, node, registry)
        if child.removes and inner.declared and not inner.nullable:
            continue
        entries[key] = _settle(child, inner, registry)
    return replace(node, value=entries)
