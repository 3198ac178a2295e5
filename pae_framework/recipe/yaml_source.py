"""Reads YAML into a tree with positions. No torch.

Scalars follow the core schema of YAML 1.2, not PyYAML's 1.1: ``1e-4`` is a float, ``0o17`` is
octal, and ``on``, ``yes`` and ``12:30:00`` are strings. Keys are strings and must be unique. Tags
are rejected.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pae_framework.errors import Problem, RecipeError
from pae_framework.recipe.nodes import MAX_DEPTH, KeyPath, Node, Scalar, dotted
from pae_framework.recipe.suggestions import describe
from pae_framework.system.files import file_problem

_MAX_BYTES = 1_000_000
"""Largest size of a recipe file."""

_MAX_VALUES = 10_000
"""Largest number of values in a recipe; stops aliases that expand exponentially."""

_MAX_DIGITS = 400
"""Longest number; a float of 64 bits has up to 309 digits before the point."""

_TOO_MANY = f"has more than {_MAX_VALUES} values"
_TOO_DEEP = f"is nested too deeply: more than {MAX_DEPTH} levels"

_CORE = (
    # tag, pattern, first characters (YAML 1.2.2, section 10.3.2)
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)


def use_core_schema(owner: type[Any]) -> None:
    """Make a PyYAML loader or dumper class use the scalars of YAML 1.2 instead of 1.1."""
    owner.yaml_implicit_resolvers = {}
    for tag, spelling, first in _CORE:
        owner.add_implicit_resolver(
            f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{spelling})\\Z"), first
        )


class _TooLarge(yaml.MarkedYAMLError):
    """A document has more values or levels than any recipe."""


class CoreLoader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2, for small and flat documents."""

    def __init__(self, text: str):
        super().__init__(text)
        self._composed = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose the next node, unless the document is too large or too deep.

        Raises:
            _TooLarge: it is.
        """
        self._composed += 1
        if self._composed > 2 * _MAX_VALUES or self._depth > MAX_DEPTH:
            limit = _TOO_DEEP if self._depth > MAX_DEPTH else _TOO_MANY
            raise _TooLarge(problem=limit, problem_mark=self.get_mark())
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def document(self) -> yaml.Node | None:
        """The root of the only document; None if there is none.

        Raises:
            MarkedYAMLError, ReaderError: the text is not YAML.
        """
        try:
            return self.get_single_node()
        except (ValueError, OverflowError):  # PyYAML does not check the range of an escape
            problem = "an escape is no character of Unicode"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.get_mark()) from None


use_core_schema(CoreLoader)


def _integer(text: str) -> int:
    return int(_short(text), {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(text: str) -> float:
    return float(_short(text).replace(".inf", "inf").replace(".nan", "nan"))


def _short(number: str) -> str:
    if len(number) > _MAX_DIGITS:
        raise ValueError("too many digits")
    return number


_SCALARS: dict[str, Callable[[str], Scalar]] = {
    "tag:yaml.org,2002:null": lambda text: None,
    "tag:yaml.org,2002:bool": lambda text: text.lower() == "true",
    "tag:yaml.org,2002:int": _integer,
    "tag:yaml.org,2002:float": lambda text: _float(text.lower()),
    "tag:yaml.org,2002:str": lambda text: text,
}


def display(path: Path) -> str:
    """Format a path for messages: relative to the working directory if it lies below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def read_file(path: Path, expected: str = "a recipe") -> tuple[Node, str, list[Problem]]:
    """Read a recipe file: its tree, its text and problems with single keys.

    Args:
        path: the file.
        expected: what it should hold, for messages.

    Raises:
        RecipeError: the file cannot be read, or is not a YAML map.
    """
    name = display(path)

    def position(line: int, column: int) -> str:
        return f"{name}:{line}:{column}"

    if problem := file_problem(path):
        raise RecipeError([Problem(problem)])
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        _check_size(len(data), position)
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        message = f"is not UTF-8 text: {error.reason}: 0x{data[error.start]:02x}"
        raise RecipeError([Problem(message, where=position(line, column))]) from None
    except OSError as error:
        raise RecipeError([Problem(f"cannot be read: {error.strerror}", where=name)]) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    node, problems = parse(text, position)
    if node is None or (node.value is None and not problems):
        raise RecipeError([Problem(f"is empty; expected {expected}", where=position(1, 1))])
    if node.map is None:
        message = f"expected a map of `key: value` at the top, found {describe(node.plain())}"
        raise RecipeError([*problems, Problem(message, where=node.where)])
    return node, text, problems


def parse(text: str, position: Callable[[int, int], str]) -> tuple[Node | None, list[Problem]]:
    """Parse YAML text into a tree (None if it is empty) and problems with single keys.

    Args:
        text: one YAML document.
        position: formats a position from line and column, both counted from 1.

    Raises:
        RecipeError: the text is not YAML, or too large.
    """
    _check_size(len(text), position)
    try:
        root = CoreLoader(text).document()
        if root is None:
            return None, []
        builder = _Builder(position)
        return builder.build(root, (), None), builder.problems
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = position(mark.line + 1, mark.column + 1) if mark else position(1, 1)
        reason = yaml_reason(error)
        message = reason if isinstance(error, _TooLarge) else f"is not YAML: {reason}"
        raise RecipeError([Problem(message, where=where)]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"is not YAML: {_not_allowed(error.character)}"
        raise RecipeError([Problem(message, where=position(line, 1))]) from None


def yaml_reason(error: yaml.YAMLError) -> str:
    """Why a text is not YAML, in one line without an excerpt of the text."""
    if isinstance(error, yaml.MarkedYAMLError):
        return ", ".join(filter(None, (error.context, error.problem)))
    return " ".join(str(error).split())


def _check_size(size: int, position: Callable[[int, int], str]) -> None:
    if size > _MAX_BYTES:
        message = f"is too large: a recipe has at most {_MAX_BYTES} bytes"
        raise RecipeError([Problem(message, where=position(1, 1))])


def _not_allowed(character: str | bytes | int) -> str:
    """A message about an invalid character, which PyYAML gives as str, bytes or int."""
    code = character if isinstance(character, int) else ord(character[:1])
    return f"the character U+{code:04X} is not allowed"


class _Builder:
    """Converts PyYAML's nodes to ours and collects problems."""

    def __init__(self, position: Callable[[int, int], str]):
        self.problems: list[Problem] = []
        self._position = position
        self._open: list[yaml.Node] = []
        self._count = 0

    def build(self, node: yaml.Node, path: KeyPath, key: yaml.Node | None) -> Node:
        where = self._where(node)
        key_where = where if key is None else self._where(key)
        self._count += 1
        if any(node is outer for outer in self._open) or self._count > _MAX_VALUES:
            message = f"has an alias that contains itself, or {_TOO_MANY.removeprefix('has ')}"
            raise RecipeError([Problem(message, dotted(path), where)])
        if len(self._open) > MAX_DEPTH:
            raise RecipeError([Problem(_TOO_DEEP, dotted(path), where)])
        self._open.append(node)
        try:
            return Node(self._value(node, path, where), where, key_where)
        finally:
            self._open.pop()

    def _value(
        self, node: yaml.Node, path: KeyPath, where: str
    ) -> Scalar | dict[str, Node] | list[Node]:
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._map(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.build(item, (*path, i), None) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            self._check_text(node.value, path, where)
            try:
                return _SCALARS[node.tag](node.value)
            except ValueError:
                limit = f" of at most {_MAX_DIGITS} digits" if len(node.value) > _MAX_DIGITS else ""
                self._problem(f"{describe(node.value)} is not a number{limit}", path, where)
                return None
        self._problem(f"the tag {node.tag!r} is not allowed in a recipe", path, where)
        return None

    def _map(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key_node, value_node in node.value:
            where = self._where(key_node)
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                scalar = isinstance(key_node, yaml.ScalarNode)
                found = repr(key_node.value) if scalar else "a collection"
                message = f"a key must be a string, found {found}"
                self._problem(message, path, where, "put it in quotes")
                continue
            key = key_node.value
            self._check_text(key, path, where)
            child = self.build(value_node, (*path, key), key_node)
            if key in entries:
                first = entries[key].key_where
                self._problem("duplicate key", (*path, key), where, f"first written at {first}")
                continue
            entries[key] = child
        return entries

    def _check_text(self, text: str, path: KeyPath, where: str) -> None:
        """Reject characters that YAML allows only as escapes; files and names cannot hold them."""
        if (found := yaml.reader.Reader.NON_PRINTABLE.search(text)) is not None:
            self._problem(_not_allowed(found.group()), path, where)

    def _problem(self, message: str, path: KeyPath, where: str, hint: str = "") -> None:
        self.problems.append(Problem(message, dotted(path), where, hint))

    def _where(self, node: yaml.Node) -> str:
        return self._position(node.start_mark.line + 1, node.start_mark.column + 1)
