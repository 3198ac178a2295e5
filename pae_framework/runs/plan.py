"""Which stages a recipe has, and the fingerprint of each.

A fingerprint is a hash of all a stage's result depends on: its part of the recipe, the fingerprints
of the stages it reads, and the versions of its code and its components. Values a recipe leaves at
their defaults do not count, so a setting that is new in a release changes no old fingerprint. What
is not meant to change a result is left out: how often to log, how many processes load data; what
changes sums in their last digits only, which is the machine (device, threads, TF32; a stage's
record says which) and how the same numbers are computed (``compile``, ``activation_checkpointing``,
a kernel of attention); and what only checks that all is there. A component's config names such
parameters in ``without_effect``. ``accumulate`` does count: adaptive weights and random draws are
per micro-batch. Two runs whose stages have equal fingerprints can share them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pae_framework.config import Settings
from pae_framework.plugins import Registry
from pae_framework.recipe.components import Component
from pae_framework.recipe.derived import LATENT_FILES
from pae_framework.recipe.models import AdversarialSection, Recipe
from pae_framework.runs.autoguidance_run import generator_weights
from pae_framework.tokenizer.tokenizer_settings import RefinementSettings
from pae_framework.training.train_settings import TrainSettings

STAGE_VERSIONS = {
    "extractor": 1,
    "encoder": 1,
    "refine": 1,
    "tokenizer": 1,
    "latents": 1,
    "generator": 1,
    "sample": 1,
    "evaluate": 1,
    "report": 1,
}
"""Raised when a stage's code changes what it produces; the keys are in the order they run."""

WITHOUT_EFFECT = {
    "log_every",
    "checkpoint_every",
    "workers",
    "jump",
    "compile",
    "activation_checkpointing",
}
"""Settings of a training that change no result but for rounding."""

_SHARD_EDGE = 1 << 18
"""Bytes at either end of a shard that its identity looks at: there may be hundreds of shards."""


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
    for name in STAGE_VERSIONS:
        found = _PARTS[name](recipe)
        if found is None:
            continue
        parts, inputs = found
        present = tuple(stage for stage in inputs if stage in stages)
        content = {
            "stage": name,
            "version": STAGE_VERSIONS[name],
            "parts": {key: _dump(value, registry) for key, value in parts.items()},
            "inputs": {stage: stages[stage].fingerprint for stage in present},
        }
        stages[name] = PlannedStage(name, _digest(content), present)
    return list(stages.values())


def upstream_stages(stages: Mapping[str, PlannedStage], name: str) -> list[str]:
    """A stage and all that it reads, directly or not, in the order they run."""
    needed, waiting = {name}, [name]
    while waiting:
        inputs = stages[waiting.pop()].inputs
        waiting += [stage for stage in inputs if stage not in needed]
        needed.update(inputs)
    return [stage for stage in stages if stage in needed]


Parts = tuple[dict[str, Any], tuple[str, ...]]


def _pretraining(section: str) -> Callable[[Recipe], Parts | None]:
    def parts(recipe: Recipe) -> Parts | None:
        component = recipe.extractor if section == "extractor" else recipe.tokenizer.encoder
        if component is None or component.train is None:
            return None
        return {**_images(recipe), "component": component, **_seed(recipe, component.train)}, ()

    return parts


def _refine(recipe: Recipe) -> Parts | None:
    tokenizer = recipe.tokenizer
    unused = tokenizer.weights is not None or tokenizer.target == "raw"
    if tokenizer.refinement is None or unused:
        return None
    return {
        **_images(recipe),
        "encoder": tokenizer.encoder,
        "bottleneck": tokenizer.bottleneck,
        "refinement": tokenizer.refinement,
        **_seed(recipe, tokenizer.refinement.train),
    }, ("encoder",)


def _tokenizer(recipe: Recipe) -> Parts:
    tokenizer = recipe.tokenizer
    if tokenizer.weights is not None:
        return _trained_tokenizer(recipe, tokenizer.weights), ("encoder",)
    # The refinement reaches the tokenizer only through a regularizer that looks at its target.
    uses_target = tokenizer.active_target == "refined"
    parts = {
        "modulator": tokenizer.modulator,
        "bottleneck": tokenizer.bottleneck,
        "decoder": tokenizer.decoder,
        "reconstruction": tokenizer.reconstruction,
        "regularizers": tokenizer.regularizers,
        "train": tokenizer.train,
        "encoder": tokenizer.encoder,
        **_set(tokenizer, "target", "noise"),
    }
    if tokenizer.active_adversarial is not None:
        parts["adversarial"] = tokenizer.active_adversarial
    inputs = ("encoder", "refine") if uses_target else ("encoder",)
    return {**_images(recipe), **parts, **_seed(recipe, tokenizer.train)}, inputs


def _trained_tokenizer(recipe: Recipe, weights: str) -> dict[str, Any]:
    """What a tokenizer depends on that is loaded from a file: its form, and what is in the file."""
    tokenizer = recipe.tokenizer
    return {
        "image_size": recipe.data.image_size,
        "encoder": tokenizer.encoder,
        "modulator": tokenizer.modulator,
        "bottleneck": tokenizer.bottleneck,
        "decoder": tokenizer.decoder,
        "weights": _contents(weights),
    }


def _contents(file: str) -> str:
    """What tells the contents of a file from others; its name where it is not there."""
    path = Path(file).expanduser()
    return file_identity(path) if path.is_file() else file


def _folder_contents(folder: str) -> dict[str, str] | str:
    """What tells the latents in a folder, and their statistics, from others; its name where there
    are none."""
    paths = sorted(Path(folder).expanduser().glob(LATENT_FILES))
    return {path.name: file_identity(path, _SHARD_EDGE) for path in paths} or folder


def _set(section: BaseModel, *keys: str) -> dict[str, Any]:
    """The values among ``keys`` that are not at their defaults."""
    fields = type(section).model_fields
    values = {key: getattr(section, key) for key in keys}
    return {key: value for key, value in values.items() if value != fields[key].default}


def _latents(recipe: Recipe) -> Parts | None:
    if recipe.generator is None:
        return None
    if recipe.latents.statistics is not None:
        return {"statistics": _contents(recipe.latents.statistics)}, ("encoder", "tokenizer")
    if recipe.latents.folder is not None:
        found = {"folder": _folder_contents(recipe.latents.folder), "flip": recipe.data.flip}
        return found, ("encoder", "tokenizer")
    # how the work is cut changes no latent
    settings = recipe.latents.model_copy(update={"batch_size": 1, "processes": 1, "workers": 0})
    return {**_images(recipe), "latents": settings}, ("encoder", "tokenizer")


def _generator(recipe: Recipe) -> Parts | None:
    component = recipe.generator
    if component is None:
        return None
    if component.weights is not None:
        untrained = {"weights": None, "train": None, "objective": None}
        network = component.model_copy(update=untrained)
        return {"generator": network, "weights": _contents(component.weights)}, ("latents",)
    return {"generator": component, **_seed(recipe, component.train)}, ("latents",)


def _sample(recipe: Recipe) -> Parts | None:
    if recipe.sample is None or recipe.generator is None:
        return None
    settings = recipe.sample.model_copy(update={"batch_size": 1, "processes": 1})
    parts: dict[str, Any] = {"sample": settings}
    if (run := settings.guidance.autoguidance) is not None:
        weights = generator_weights(run)
        parts["autoguidance"] = file_identity(weights) if weights.is_file() else run
        guidance = settings.guidance.model_copy(update={"autoguidance": None})
        parts["sample"] = settings.model_copy(update={"guidance": guidance})
    return parts, ("encoder", "tokenizer", "latents", "generator")


def _evaluate(recipe: Recipe) -> Parts | None:
    if not recipe.evaluate:
        return None
    data = recipe.data
    parts = {
        "evaluate": recipe.evaluate,
        "image_size": data.image_size,
        "test": data.test,
        "test_images": data.test_images,
        "seed": recipe.seed,
    }
    if recipe.tokenizer.weights is not None:  # where it is trained, its stage stands for this
        parts["reconstruction"] = recipe.tokenizer.reconstruction
    return parts, ("extractor", "encoder", "tokenizer", "sample")


def _report(recipe: Recipe) -> Parts:
    everything = tuple(name for name in STAGE_VERSIONS if name != "report")
    shown = {"test": recipe.data.test, "test_images": recipe.data.test_images, "seed": recipe.seed}
    return {"name": recipe.name, "text": recipe.description, **shown}, everything


_PARTS: dict[str, Callable[[Recipe], Parts | None]] = {
    "extractor": _pretraining("extractor"),
    "encoder": _pretraining("encoder"),
    "refine": _refine,
    "tokenizer": _tokenizer,
    "latents": _latents,
    "generator": _generator,
    "sample": _sample,
    "evaluate": _evaluate,
    "report": _report,
}


def _images(recipe: Recipe) -> dict[str, Any]:
    data = recipe.data
    return {"image_size": data.image_size, "train_images": data.train, "flip": data.flip}


def _seed(recipe: Recipe, train: BaseModel) -> dict[str, Any]:
    own: int | None = getattr(train, "seed", None)
    return {"seed": recipe.seed if own is None else own}


def _dump(value: Any, registry: Registry) -> Any:
    """A part as plain JSON types: what was set, without what has no effect."""
    if isinstance(value, Component):
        return _dump_component(value, registry)
    if isinstance(value, TrainSettings):
        return value.model_dump(mode="json", exclude_defaults=True, exclude=WITHOUT_EFFECT)
    if isinstance(value, RefinementSettings):
        settings = _values(value, {"train"})
        return {**settings, "train": _dump(value.train, registry)}
    if isinstance(value, AdversarialSection):
        settings = _values(value, {"discriminator"})
        return {**settings, "discriminator": _dump(value.discriminator, registry)}
    if isinstance(value, BaseModel):
        return _values(value)
    if isinstance(value, dict):
        return {key: _dump(item, registry) for key, item in value.items()}
    return value


def _dump_component(component: Component, registry: Registry) -> dict[str, Any]:
    spec = registry.find(component.kind, component.use)
    own = {
        key: _dump(getattr(component, key), registry)
        for key in type(component).model_fields
        if key not in ("use", "config", "weights")  # a file of weights counts by its contents
    }
    return {
        "name": f"{spec.plugin.distribution}/{spec.name}",
        "version": type(component.config).version,
        "config": _values(component.config, type(component.config).without_effect),
        **own,
    }


def _values(model: BaseModel, exclude: Collection[str] = ()) -> dict[str, Any]:
    """What was set, with what tells a file's contents in place of its name."""
    values = model.model_dump(mode="json", exclude_defaults=True, exclude=set(exclude))
    return _by_contents(model, values)


def _by_contents(model: BaseModel, values: dict[str, Any]) -> dict[str, Any]:
    files = model.files() if isinstance(model, Settings) else {}
    for key, value in values.items():
        part = getattr(model, key, None)
        if key in files and files[key].is_file():
            values[key] = file_identity(files[key])
        elif isinstance(part, BaseModel) and isinstance(value, dict):
            values[key] = _by_contents(part, value)
    return values


def file_identity(path: Path, edge: int = 1 << 20) -> str:
    """What tells a large file from others without reading all of it: size, beginning and end."""
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=12)
    with path.open("rb") as file:
        digest.update(file.read(edge))
        file.seek(max(0, size - edge))
        digest.update(file.read(edge))
    return digest.hexdigest()


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
