"""Which stages a recipe has, and the fingerprint of each.

A fingerprint is a hash of everything a stage's result depends on: values of the recipe, the
fingerprints of the stages it reads, and the versions of its code and its components. Values that
equal their defaults are not hashed, so a setting added by a release changes no old fingerprint.
Settings named in ``without_effect`` of their model are not hashed either: they change no result, or
only its rounding (``compile``, ``activation_checkpointing``, an attention kernel). The same holds
for the machine: device, threads, TF32; a stage's record names them. ``accumulate`` is hashed:
adaptive weights and random draws are per micro-batch. Two runs whose stages have equal fingerprints
can share them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from pae_framework.config import Settings
from pae_framework.files import file_identity
from pae_framework.plugins import Registry
from pae_framework.recipe.components import Component
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.stage_table import STAGES


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a run."""

    name: str
    fingerprint: str
    inputs: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Name of the stage's folder in the store of a run."""
        return f"{self.name}-{self.fingerprint}"


def plan(recipe: Recipe, registry: Registry) -> list[PlannedStage]:
    """The stages of a recipe in the order they run."""
    stages: dict[str, PlannedStage] = {}
    for name, stage in STAGES.items():
        if not stage.exists(recipe):
            continue
        values = {key: _dump(value, registry) for key, value in stage.fingerprint(recipe).items()}
        for key in stage.constants.keys() & values.keys():
            values[key].update(stage.constants[key])
        inputs = tuple(name for name in stage.inputs(recipe) if name in stages)
        content = {
            "stage": name,
            "version": stage.version,
            "parts": values,
            "inputs": {name: stages[name].fingerprint for name in inputs},
        }
        stages[name] = PlannedStage(name, _digest(content), inputs)
    return list(stages.values())


def upstream_stages(stages: Mapping[str, PlannedStage], name: str) -> list[str]:
    """A stage and everything it reads, directly or not, in the order they run."""
    needed, waiting = {name}, [name]
    while waiting:
        inputs = stages[waiting.pop()].inputs
        waiting += [stage for stage in inputs if stage not in needed]
        needed.update(inputs)
    return [stage for stage in stages if stage in needed]


def _dump(value: Any, registry: Registry) -> Any:
    """A value as plain JSON types: settings that differ from their defaults and have an effect."""
    if isinstance(value, Component):
        return _dump_component(value, registry)
    if isinstance(value, BaseModel):
        return _hashed(value, value.model_dump(mode="json", exclude_defaults=True), registry)
    if isinstance(value, dict):
        return {key: _dump(item, registry) for key, item in value.items()}
    return value


def _dump_component(component: Component[Any], registry: Registry) -> dict[str, Any]:
    spec = registry.find(component.kind, component.use)
    own = {
        key: _dump(getattr(component, key), registry)
        for key in type(component).model_fields
        if key not in ("use", "config", "weights")  # the contents of weights are hashed instead
    }
    return {
        "name": f"{spec.plugin.distribution}/{spec.name}",
        "version": type(component.config).version,
        "config": _dump(component.config, registry),
        **own,
    }


def _hashed(model: BaseModel, dumped: dict[str, Any], registry: Registry) -> dict[str, Any]:
    """What a model was dumped to, without settings that have no effect, files by their contents."""
    without_effect = type(model).without_effect if isinstance(model, Settings) else frozenset()
    files = model.files() if isinstance(model, Settings) else {}
    values = {key: value for key, value in dumped.items() if key not in without_effect}
    for key, value in values.items():
        part = getattr(model, key, None)
        if key in files and files[key].is_file():
            values[key] = file_identity(files[key])
        elif isinstance(part, Component):
            values[key] = _dump_component(part, registry)
        elif isinstance(part, BaseModel) and isinstance(value, dict):
            values[key] = _hashed(part, value, registry)
    return values


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
