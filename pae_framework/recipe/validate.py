"""Validates a recipe against the pydantic models and explains the errors. No torch."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pae_framework.errors import PluginError, Problem, RecipeError
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath, Node, dotted
from pae_framework.recipe.schema import SchemaNode, accepts, named_settings, schema_at
from pae_framework.recipe.suggestions import describe, suggestion
from pae_framework.registry import Registry

M = TypeVar("M", bound=BaseModel)

_EXPECTED = {
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "dict_type": "a map",
    "model_type": "a map",
    "tuple_type": "a list",
    "list_type": "a list",
    "path_type": "a path",
    "literal_error": "{expected}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "multiple_of": "a multiple of {multiple_of}",
    "too_short": "{min_length} or more entries",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_long": "text of at most {max_length} characters",
    "too_long": "at most {max_length} entries",
}
_NO_MAP = frozenset({"model_type", "component"})
"""Types of errors about a value in place of a map with known keys."""

_NO_COMPONENT = frozenset({"component", "unknown_component"})
"""Types of errors about a value or label that names no component."""

_FEW_PLACES = 4
"""Sections that a hint names at most."""

_MAIN_KEYS = ("weight", "scale", "steps")
"""Keys that a number in place of a map is most likely meant for."""

_SCHEDULE = "{from: 0, to: 0.5, steps: 400}"
_OF_SCHEDULES = ("from", "to", "steps", "epochs", "warmup")
"""Its keys, and the one that the adversarial term has in its place."""

_OTHER_NAMES = {"gpu": "cuda", "bfloat16": "bf16", "fp32": "float32", "float": "float32"}
"""What other programs call values of recipes."""

_READABLE = frozenset({"component", "unknown_component", "broken_plugin", "value_error"})
"""Types of errors whose text is written for the user."""


def validate(root: Node, registry: Registry) -> Recipe:
    """Check a whole recipe.

    Raises:
        RecipeError: with every problem and its location.
        PluginError: the only problems are broken plugins that the recipe needs.
    """
    return validate_as(Recipe, root, registry)


def validate_as(model: type[M], root: Node, registry: Registry | None = None) -> M:
    """Check a tree against a model.

    Args:
        model: the model of the whole tree.
        root: the tree.
        registry: known components; None: the model has none.

    Raises:
        RecipeError: with every problem and its location.
        PluginError: the only problems are broken plugins that the tree needs.
    """
    try:
        return model.model_validate(root.plain(), context={"registry": registry})
    except ValidationError as error:
        found = _without_consequences(error.errors(include_url=False))
    paths = [_key_path(details["loc"], root) for details in found]
    explain = _Explain(root, SchemaNode(model), registry)
    problems = [
        explain.problem([details for _, details in group], path)
        for path, group in groupby(zip(paths, found, strict=True), key=itemgetter(0))
    ]
    if all(details["type"] == "broken_plugin" for details in found):
        raise PluginError("\n".join(map(str, problems)))
    raise RecipeError(problems)


def _without_consequences(found: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without the complaint that a list is too short once its invalid entries are left out."""
    owners = {details["loc"][:-1] for details in found if details["loc"]}
    return [d for d in found if d["type"] != "too_short" or d["loc"] not in owners]


@dataclass(frozen=True)
class _Explain:
    """Turns pydantic's errors about a tree into problems."""

    root: Node
    schema: SchemaNode
    registry: Registry | None

    def problem(self, found: list[ErrorDetails], path: KeyPath) -> Problem:
        """One problem from pydantic's errors at one key path (several for a union of types)."""
        where = self.root.position(path)
        if found[0]["type"] == "missing":
            message, hint = self._missing(path)
        elif found[0]["type"] == "extra_forbidden":
            known = self._fields(path[:-1]) or ()
            message, hint = "unknown key", suggestion(str(path[-1]), known)
            if path[-1] in _OF_SCHEDULES and self._at((*path[:-1], "weight"))[0].number:
                hint = f"a weight that changes is `weight: {_SCHEDULE}`"
            elif self._at(path[:-1])[0].number and path[-1] in (self._fields(path[:-2]) or ()):
                hint = f"did you mean {dotted((*path[:-2], path[-1]))}?"
            elif not hint.startswith("did you mean"):
                hint = self._setting_elsewhere(path) or hint
            where = unknown.key_where if (unknown := self.root.find(path)) else where
        else:
            message, hint = explain_value(found)
            hint = hint or self._key_to_write(found[0], path)
            if not hint and found[0]["type"] in _NO_COMPONENT:
                hint = self._setting_of_label(path)
                message = message.rstrip(".") if hint else message
        schema, node = self._at(path)
        if schema.number and node.map is None:
            message = message.replace("expected a number,", "expected a number or a map,")
        elif schema.number and len({"steps", "epochs"} & set(node.map or ())) != 1:
            hint = f"a weight that changes is `{_SCHEDULE}`"
        return Problem(message, dotted(path), where, hint)

    def _missing(self, path: KeyPath) -> tuple[str, str]:
        component = self._at(path[:-1])[0].component
        if path[-1] == "use" and component is not None:
            return "missing", f"set `use: <{component.kind}>`"
        field = (self._fields(path[:-1]) or {}).get(str(path[-1]))
        description = field.description if field is not None else None
        return f"missing ({description})" if description else "missing", ""

    def _key_to_write(self, found: ErrorDetails, path: KeyPath) -> str:
        """A hint for a number or boolean in place of a map: one key of it that takes the value."""
        value = found["input"]
        if (
            found["type"] not in _NO_MAP
            or isinstance(value, str)
            or not isinstance(value, int | float)
        ):
            return ""
        fields = self._fields(path) or {}
        keys = [key for key, field in fields.items() if accepts(field, value)]
        key = next((key for key in _MAIN_KEYS if key in keys), next(iter(keys), None))
        return f"set a key of it, such as {dotted((*path, key))}={describe(value)}" if key else ""

    def _setting_of_label(self, path: KeyPath) -> str:
        """The same hint for a label of a map, such as ``evaluate``, that names no component."""
        if path[-1] == "use":
            if self.root.find(path) is not None:
                return ""
            path = path[:-1]
        return self._setting_elsewhere(path) if self._fields(path[:-1]) is None else ""

    def _setting_elsewhere(self, path: KeyPath) -> str:
        """A hint for a key that is a setting of other sections, if there are few of them."""
        found = [dotted(place) for place in named_settings(self.schema, str(path[-1]))]
        return f"did you mean {' or '.join(found)}?" if 0 < len(found) <= _FEW_PLACES else ""

    def _at(self, path: KeyPath) -> tuple[SchemaNode, Node]:
        return schema_at(self.root, path, self.registry, self.schema)

    def _fields(self, path: KeyPath) -> Mapping[str, FieldInfo] | None:
        schema, node = self._at(path)
        return schema.keys(node, self.registry)


def _key_path(loc: tuple[int | str, ...], root: Node) -> KeyPath:
    """pydantic's location as a key path of the recipe, without steps that exist only in models."""
    path: list[str | int] = []
    node: Node | None = root
    for position, key in enumerate(loc):
        if node is None:
            continue
        child = node.child(key)
        if str(key).startswith("<") and child is None:  # a name that only models have
            continue
        if child is not None or (node.map is not None and position == len(loc) - 1):
            path.append(key)
            node = child
    return tuple(path)


def explain_value(found: Sequence[ErrorDetails]) -> tuple[str, str]:
    """Message and hint for an invalid value, from all of pydantic's errors about it."""
    first = found[0]
    context: dict[str, Any] = first.get("ctx", {})
    if first["type"] in _READABLE:
        return str(context.get("error", first["msg"])), ""
    written = describe(first["input"])
    expected = [_expected(details) for details in found]
    if None in expected:
        return f"{first['msg'].rstrip('.').lower()}, found {written}", ""
    message = f"expected {' or '.join(dict.fromkeys(filter(None, expected)))}, found {written}"
    if first["type"] == "literal_error" and isinstance(first["input"], str):
        choices = re.findall(r"'([^']*)'", str(context["expected"]))
        word = first["input"].lower()
        near = difflib.get_close_matches(word, choices, n=1, cutoff=0.8)
        other = _OTHER_NAMES.get(word)
        nearest = other if other in choices else next(iter(near), None)
        return message, f"did you mean {nearest!r}?" if nearest else ""
    if first["type"] == "int_type" and isinstance(first["input"], float):
        whole = first["input"].is_integer() and abs(first["input"]) < 1e18
        return message, f"write {int(first['input'])}" if whole else ""
    return message, ""


def _expected(details: ErrorDetails) -> str | None:
    """The expected value in words; None if pydantic's own message must be used."""
    expected = _EXPECTED.get(details["type"])
    return None if expected is None else expected.format(**details.get("ctx", {}))
