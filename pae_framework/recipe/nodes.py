"""A recipe as a tree that remembers where every key and value was written. No torch.

Everything that happens to a recipe before it is validated (reading, ``extends``, overrides, sweep
variants) happens to this tree, so a problem found at the end still points to its line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

KeyPath = tuple[str | int, ...]
"""The keys and list indices that lead to a value: ``("tokenizer", "encoder", "patch")``."""

Scalar = str | int | float | bool | None
COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Node:
    """One value: a scalar, a map of nodes or a list of nodes."""

    value: Scalar | dict[str, Node] | list[Node]
    where: str
    """Where the value was written: ``file:line:column``, or ``command line``."""
    key_where: str
    """Where its key was written; of a list's entry or the root, the same as ``where``."""
    removes: bool = False
    """Whether this null stands for "remove the key" (see :mod:`pae_framework.recipe.merge`)."""
    replaces: bool = False
    """Whether this value replaces a map below it instead of merging with it (an override)."""

    @property
    def map(self) -> dict[str, Node] | None:
        """The entries of a map, or None where this is none."""
        return self.value if isinstance(self.value, dict) else None

    def child(self, key: str | int) -> Node | None:
        """The entry of a map or a list, or None where there is none."""
        if isinstance(self.value, dict) and isinstance(key, str):
            return self.value.get(key)
        if isinstance(self.value, list) and isinstance(key, int) and 0 <= key < len(self.value):
            return self.value[key]
        return None

    def find(self, path: Sequence[str | int]) -> Node | None:
        """The node at a key path, or None where there is none."""
        node: Node | None = self
        for key in path:
            if node is None:
                return None
            node = node.child(key)
        return node

    def nearest(self, path: Sequence[str | int]) -> Node:
        """The node at a key path or, where nothing was written there, its nearest ancestor."""
        node = self
        for key in path:
            child = node.child(key)
            if child is None:
                return node
            node = child
        return node

    def place(self, path: Sequence[str | int]) -> str:
        """Where to point: at a value, else at its key, else at the key of what should hold it."""
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
    """A key path as messages write it: ``a.b``, and ``a.b[0]`` for entries of lists."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def at_path(path: Sequence[str], node: Node) -> Node:
    """A tree with nothing in it but ``node`` at a key path: one override as a layer to merge."""
    for key in reversed(path):
        node = Node({key: node}, node.where, node.where)
    return node
