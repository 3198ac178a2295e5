"""Documents the keys of recipes, for help and examples, from the pydantic models. No torch."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pae_framework.config import ComponentConfig, EncoderConfig, Settings, written_defaults
from pae_framework.kinds import KINDS
from pae_framework.recipe.emit import inline, lines

_WORDS = {int: "integer", float: "number", bool: "true or false", str: "text", dict: "map"}
_LIMITS = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="), ("multiple_of", "multiple of"))


@dataclass(frozen=True)
class Parameter:
    """One key of a model."""

    name: str
    """Key path relative to the model."""
    type: str
    """In words, with its limits: ``integer > 0``, ``'train' or 'test'``, ``number or null``."""
    required: bool
    default: Any
    """In JSON types; None if the key is required."""
    description: str


def parameters(model: type[BaseModel], prefix: str = "") -> Iterator[Parameter]:
    """Parameters of a model in order of declaration; those of nested models have key paths."""
    defaults = written_defaults(model)
    for key, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Settings) and not field.is_required():
            yield from parameters(inner, f"{prefix}{key}.")
            continue
        required = field.is_required()
        default = defaults.get(key)
        yield Parameter(prefix + key, type_words(field), required, default, field.description or "")


def type_words(field: FieldInfo) -> str:
    """The type of a field in words, with its limits."""
    words = _words(field.annotation)
    bare = words.removesuffix(" or null")
    return bare + _limits(field.metadata) + words[len(bare) :]


def example(kind: str, name: str, config: type[ComponentConfig]) -> str:
    """YAML to paste into a recipe: required parameters to fill in, optional ones in comments."""
    path = tuple(part.format(name=name) for part in KINDS[kind].path)
    keys = list(parameters(config))
    values: dict[str, Any] = {"use": name}
    values |= {parameter.name: f"<{parameter.type}>" for parameter in keys if parameter.required}
    block: Any = values
    for key in reversed(path):
        block = {key: block}
    indent = "  " * len(path)
    optional = [
        f"{indent}# {parameter.name}: {inline(parameter.default)}"
        for parameter in keys
        if not parameter.required
    ]
    if kind == "generator" or (issubclass(config, EncoderConfig) and config.trainable):
        optional.append(f"{indent}train: {{steps: <integer > 0>}}")
    return "\n".join([*(line for line, _ in lines(block)), *optional])


def _words(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(inner[0]) + _limits(inner[1:])
    if origin is Literal:
        return " or ".join(repr(choice) for choice in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(choice) for choice in inner)
    if origin in (tuple, list):
        if origin is list or inner[-1] is Ellipsis:
            return f"list of {_words(inner[0])}"
        return f"[{', '.join(_words(entry) for entry in inner)}]"
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return "map"
    return _WORDS.get(origin or annotation, getattr(annotation, "__name__", str(annotation)))


def _limits(metadata: Any) -> str:
    limits = [
        f"{sign} {_number(getattr(part, key))}"
        for part in metadata
        for key, sign in _LIMITS
        if getattr(part, key, None) is not None
    ]
    return f" {' and '.join(limits)}" if limits else ""


def _number(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"
