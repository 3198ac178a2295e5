"""Which stages a recipe has, and the fingerprint of each.

A fingerprint is a hash of everything that determines a stage's result: values of the recipe, the
fingerprints of the stages it reads, and the versions of its code and components. Runs share stages
with equal fingerprints.

Not hashed: values that equal their defaults, so a new setting changes no old fingerprint; settings
in ``without_effect`` of their model, which change no result or only its last digits (``compile``,
``attention: xformers``); and device, threads and TF32, which the stage's record holds.
``attention: matmul`` is hashed because it rounds more under bf16, and ``accumulate`` because
adaptive weights and random numbers are computed per micro-batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pae_framework.config import DataSourceConfig, Settings
from pae_framework.recipe.components import Component
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.registry import Registry
from pae_framework.weight_parts import contents_identity

Split = Literal["train", "test"]
Contents = Sequence[tuple[DataSourceConfig, str]]


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a run."""

    name: str
    fingerprint: str
    inputs: tuple[str, ...]
    data: Mapping[Split, str] = field(default_factory=dict)
    """Identity of each split's files, by which it was planned."""
    identified: str | None = None
    """Its fingerprint by these files, if the one of its folder is of an earlier version."""
    hashed: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What its fingerprint is the hash of, in JSON types; empty if the plan was read from a run."""

    @property
    def folder(self) -> str:
        """Name of the stage's folder in ``stages/`` of the run."""
        return f"{self.name}-{self.fingerprint}"


def plan(recipe: Recipe, registry: Registry, contents: Contents = ()) -> list[PlannedStage]:
    """The stages of a recipe in the order they run.

    Args:
        recipe: the recipe.
        registry: the installed plugins.
        contents: identity of the files of data sources, hashed instead of where the files are.
    """
    dump = _Dump(registry, contents)
    stages: dict[str, PlannedStage] = {}
    for name, stage in STAGES.items():
        if not stage.exists(recipe):
            continue
        values = stage.hashed_values(recipe)
        inputs = tuple(read for read in stage.inputs(recipe) if read in stages)
        content = {
            "stage": name,
            "version": stage.version,
            "parts": dump.value(values, values),
            "inputs": {read: stages[read].fingerprint for read in inputs},
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        stages[name] = PlannedStage(name, _digest(text), inputs, hashed=json.loads(text))
    return list(stages.values())


def component_identity(component: Component[Any], registry: Registry) -> dict[str, Any]:
    """What fingerprints hash of a component: files by their contents, and its version."""
    return _Dump(registry, ()).component(component)


def upstream_stages(stages: Mapping[str, PlannedStage], name: str) -> list[str]:
    """A stage and all stages it reads, directly or indirectly, in the order they run."""
    needed, waiting = {name}, [name]
    while waiting:
        inputs = stages[waiting.pop()].inputs
        waiting += [stage for stage in inputs if stage not in needed]
        needed.update(inputs)
    return [stage for stage in stages if stage in needed]


def downstream_stages(stages: Mapping[str, PlannedStage], names: Collection[str]) -> list[str]:
    """The named stages and all stages that read them, directly or not, in the order they run."""
    return [name for name in stages if not set(names).isdisjoint(upstream_stages(stages, name))]


@dataclass(frozen=True)
class _Dump:
    """Dumps values of a recipe in JSON types, to be hashed."""

    registry: Registry
    contents: Contents

    def value(self, value: Any, plain: Any) -> Any:
        """A value; of settings, those that differ from their defaults and matter.

        ``plain`` is the value in JSON types, which is kept of all but settings.
        """
        if isinstance(value, Component):
            return self.component(value)
        if isinstance(value, Settings):
            return self.settings(value)
        if isinstance(value, dict) and isinstance(plain, dict):
            entries = zip(plain.items(), value.values(), strict=True)
            return {key: self.value(entry, old) for (key, old), entry in entries}
        if isinstance(value, tuple | list) and isinstance(plain, tuple | list):
            return [self.value(entry, old) for entry, old in zip(value, plain, strict=True)]
        return plain

    def component(self, component: Component[Any]) -> dict[str, Any]:
        """The component's name, version and parameters."""
        spec = self.registry.find(component.kind, component.use)
        own = {
            key: self.value(value, value)
            for key, value in component
            if key not in ("use", "config", "weights")  # the contents of weights are hashed instead
            and not (value is None and key in component.hashed_if_set)
        }
        version = type(component.config).version
        return {
            "name": f"{spec.plugin.distribution}/{spec.name}",
            "version": f"{version}-{spec.plugin.version}" if spec.plugin.file else version,
            "config": self.settings(component.config),
            **own,
        }

    def settings(self, settings: Settings) -> dict[str, Any]:
        """Settings without those that have no effect; files are replaced by their identities."""
        files, values = settings.files(), settings.hashed()
        for key in values:
            if key in files and (identity := contents_identity(files[key])) is not None:
                values[key] = identity
            else:
                values[key] = self.value(getattr(settings, key, None), values[key])
        for source, identity in self.contents:
            if source == settings:
                values = {key: values[key] for key in values.keys() - source.locations}
                values["contents"] = identity
        return values


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
