"""A recipe as a tree that records the position of every key and value. No torch.

All processing before validation (reading, ``extends``, overrides, sweep variants) works on this
tree, so errors found in validation still point to a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pae_framework.recipe.suggestions import describe

KeyPath = tuple[str | int, ...]
"""Keys and list indices from the root to a value: ``("tokenizer", "encoder", "patch")``."""

Scalar = str | int | float | bool | None
COMMAND_LINE = "command line"

MAX_DEPTH = 50
"""Levels of a recipe below which nothing is nested."""


@dataclass(frozen=True)
class Node:
    """One value: a scalar, a map of nodes or a list of nodes."""

    value: Scalar | dict[str, Node] | list[Node]
    where: str
    """Position of the value: ``file:line:column`` or ``command line``."""
    key_where: str
    """Position of its key; for the root and for entries of lists, the same as ``where``."""
    removes: bool = False
    """Whether this null removes the key (see :mod:`pae_framework.recipe.merge`)."""
    replaces: bool = False
    """Whether this map replaces the earlier map instead of being merged into it (an override)."""

    @property
    def map(self) -> dict[str, Node] | None:
        """The entries of a map; None if this is not a map."""
        return self.value if isinstance(self.value, dict) else None

    def child(self, key: str | int) -> Node | None:
        """The entry of a map or list; None if there is none."""
        if isinstance(self.value, dict) and isinstance(key, str):
            return self.value.get(key)
        if isinstance(self.value, list) and isinstance(key, int) and 0 <= key < len(self.value):
            return self.value[key]
        return None

    @property
    def names_component(self) -> bool:
        """Whether this is a text, or a map whose ``use`` is not null."""
        use = self.child("use")
        return isinstance(self.value, str) or (use is not None and use.value is not None)

    def find(self, path: Sequence[str | int]) -> Node | None:
        """The node at a key path; None if there is none."""
        node: Node | None = self
        for key in path:
            node = node and node.child(key)
        return node

    def nearest(self, path: Sequence[str | int]) -> Node:
        """The node at a key path, or its nearest ancestor if there is none."""
        node = self
        for key in path:
            child = node.child(key)
            if child is None:
                return node
            node = child
        return node

    def position(self, path: Sequence[str | int]) -> str:
        """Position to report for a key path: the value, else its key, else its nearest ancestor."""
        written = self.find(path)
        if written is not None and written.map is None and written.value is not None:
            return written.where
        return self.nearest(path).key_where

    def plain(self) -> Any:
        """The value without positions: dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def dotted(path: Sequence[str | int]) -> str:
    """Format a key path: ``a.b``, or ``a.b[0]`` for entries of lists.

    Keys that are long or not printable are shown like values.
    """
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            shown = key if key.isprintable() and len(key) <= 60 else describe(key)
            text += f".{shown}" if text else shown
    return text


def tree(value: Any, where: str) -> Node:
    """Plain data as a tree whose values all have the position ``where``."""
    if isinstance(value, dict):
        value = {key: tree(entry, where) for key, entry in value.items()}
    elif isinstance(value, list | tuple):
        value = [tree(entry, where) for entry in value]
    return Node(value, where, where)


def at_path(path: Sequence[str], node: Node) -> Node:
    """A tree that holds only ``node``, at a key path: an override as a layer to merge."""
    for key in reversed(path):
        node = Node({key: node}, node.where, node.where)
    return node
