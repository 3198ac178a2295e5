"""The order in which a recipe or profile is merged from those that it extends. No torch.

``extends`` is one name or a list of names, merged from left to right. What several of them extend
is merged once, before the first.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from pathlib import Path

from pae_framework.errors import Problem, RecipeError
from pae_framework.recipe.nodes import Node
from pae_framework.recipe.suggestions import describe


@dataclass(frozen=True)
class Layer:
    """A recipe or profile before it is merged into those that it extends."""

    identity: Hashable
    """Equal for two names of the same one."""
    tree: Node
    """What it sets itself, without ``extends``."""
    extends: Node | None
    """The value of its ``extends``."""
    key: str
    """Key path of ``extends``, for messages."""
    folder: Path = Path()
    """Where it is, if it is a file."""

    @classmethod
    def of(cls, identity: Hashable, node: Node, key: str, folder: Path = Path()) -> Layer:
        """The layer of a map that may have the key ``extends``."""
        entries = dict(node.map or {})
        extends = entries.pop("extends", None)
        return cls(identity, replace(node, value=entries), extends, key, folder)

    def problem(self, name: Node, message: str, hint: str = "") -> RecipeError:
        """An error about one name in ``extends``."""
        return RecipeError([Problem(message, self.key, name.where, hint)])

    def names(self, expected: str) -> list[Node]:
        """The names in ``extends``.

        Raises:
            RecipeError: it is not a name or a list of names, which ``expected`` describes.
        """
        if self.extends is None:
            return []
        listed = self.extends.value if isinstance(self.extends.value, list) else [self.extends]
        if not listed:
            raise self.problem(self.extends, f"expected {expected}, found an empty list")
        for name in listed:
            if not isinstance(name.value, str):
                found = describe(name.plain())
                raise self.problem(name, f"expected {expected}, found {found}")
        return listed


@dataclass
class Ancestors:
    """Reads what a layer extends.

    Args:
        read: the layer that a name in another layer's ``extends`` stands for; raises RecipeError.
        expected: what a name is, for messages.
    """

    read: Callable[[Layer, Node], Layer]
    expected: str
    _order: dict[Hashable, Layer] = field(default_factory=dict)
    _merged: dict[Hashable, frozenset[Hashable]] = field(default_factory=dict)

    def order(self, layer: Layer) -> list[Layer]:
        """What a layer is merged from, in order; the layer itself is the last.

        Raises:
            RecipeError: a name is unknown or no name, comes twice, or leads back to its own file.
        """
        self._add(layer, (layer.identity,))
        return list(self._order.values())

    def _add(self, layer: Layer, descendants: tuple[Hashable, ...]) -> frozenset[Hashable]:
        """Identities of a layer and of all that it extends, after they are in the order."""
        if layer.identity in self._merged:
            return self._merged[layer.identity]
        merged = frozenset[Hashable]()
        problems: list[Problem] = []
        for name in layer.names(self.expected):
            try:
                merged |= self._add_parent(layer, name, descendants, merged)
            except RecipeError as error:
                problems.extend(error.problems)
        if problems:
            raise RecipeError(problems)
        self._order[layer.identity] = layer
        self._merged[layer.identity] = merged | {layer.identity}
        return self._merged[layer.identity]

    def _add_parent(
        self,
        layer: Layer,
        name: Node,
        descendants: tuple[Hashable, ...],
        merged: frozenset[Hashable],
    ) -> frozenset[Hashable]:
        parent = self.read(layer, name)
        shown = describe(name.value)
        if parent.identity in descendants:
            raise layer.problem(name, f"circular: {shown} extends this one")
        if parent.identity in merged:
            message = f"{shown} comes twice: it is named before, or one named before extends it"
            raise layer.problem(name, message, "remove it here, or name it first")
        return self._add(parent, (*descendants, parent.identity))
