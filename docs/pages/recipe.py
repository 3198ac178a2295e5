"""docs/reference/recipe.md: every section and key of a recipe, generated from the models."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pae_framework.config import WeightSchedule
from pae_framework.recipe.components import Component, RegularizerComponent
from pae_framework.recipe.emit import inline as yaml
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.reference import type_words
from pae_framework.training.train_settings import TrainSettings
from pages.markdown import code, inline, table

_INTRODUCTION = """\
# Recipe reference

Every key of a recipe, with its type, default and meaning. [recipes.md](../recipes.md) explains
`extends`, overrides and sweeps. *required* means that you must set the key; a section whose default
is *absent* is left out of the run. A component (*`use: <kind>`*) takes its own parameters beside
the keys listed here; see [components.md](components.md)."""


def page() -> str:
    """The page."""
    return "\n\n".join([_INTRODUCTION, *_sections((), Recipe), _train()])


def _sections(path: tuple[str, ...], model: type[BaseModel]) -> Iterator[str]:
    """A heading and a table for this model and for every nested one."""
    fields = {key: field for key, field in model.model_fields.items() if key != "config"}
    heading = f"## `{'.'.join(path)}`" if path else "## Top level"
    rows = [_row(key, field) for key, field in fields.items()]
    if not path:
        rows.insert(0, _extends())
    yield f"{heading}\n\n{_text(model)}\n\n{table(('key', 'type', 'default', ''), rows)}"
    for key, field in fields.items():
        inner = _model(field.annotation)
        if inner is None or issubclass(inner, TrainSettings):
            continue
        step = f"{key}.<label>" if get_origin(field.annotation) is dict else key
        if not issubclass(inner, Component) or len(inner.model_fields) > 2:
            yield from _sections((*path, step), inner)
        if inner is RegularizerComponent:
            yield from _sections((*path, step, "weight"), WeightSchedule)


def _extends() -> tuple[str, ...]:
    text = (
        "recipe to extend: a path relative to this file, or the name of a shipped recipe; or a list"
    )
    return (code("extends"), "text or list", "", text)


def _row(key: str, field: FieldInfo) -> tuple[str, ...]:
    inner = _model(field.annotation)
    many = get_origin(field.annotation) is dict
    kind = "map" if inner is not None else type_words(field)
    description = field.description or (_text(inner) if inner is not None else "")
    if inner is not None and issubclass(inner, Component):
        component = f"`use: <{inner.kind}>`"
        kind = f"labels with {component}" if many else component
    if (alternative := _alternative(field.annotation)) is not None:
        kind = f"map, or `use: <{alternative.kind}>`"
    if inner is TrainSettings:
        description = "training settings; see [`train`](#train)"
    if key == "use":
        description = "name of the component; in a map of labels, by default the label"
    return code(key), kind, _default(field), inline(description)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel) or default == {}:
        return ""
    if default is None:
        return "*absent*" if _model(field.annotation) is not None else "`null`"
    return code(yaml(list(default) if isinstance(default, tuple) else default))


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model that validates a value, or each entry of a map; of ``section | component`` the
    section. ``| None`` is ignored."""
    if get_origin(annotation) is dict:
        annotation = get_args(annotation)[1]
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        alternative = _alternative(annotation)
        sections = [kind for kind in kinds if kind is not alternative]
        annotation = sections[0] if len(sections) == 1 else None
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _alternative(annotation: Any) -> type[Component[Any]] | None:
    """The component in ``section | component``; else None."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return None
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    components = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Component)]
    return components[0] if len(kinds) > 1 and components else None


def _train() -> str:
    rows = [_row(key, field) for key, field in TrainSettings.model_fields.items()]
    text = (
        "The same keys in every stage that trains: `extractor.train`, `tokenizer.encoder.train`, "
        "`tokenizer.refinement.train`, `tokenizer.train`, `generator.train`. "
        + _text(TrainSettings)
    )
    return f"## `train`\n\n{text}\n\n{table(('key', 'type', 'default', ''), rows)}"


def _text(model: type[BaseModel]) -> str:
    """The model's docstring on one line."""
    return inline(" ".join((inspect.getdoc(model) or "").split()))
