"""What a recipe needs from the machine that runs it, as far as it is known beforehand. No torch.

All of it is reported at once, each item with what to do: data, weights, a GPU, memory.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from pae_framework.config import Settings
from pae_framework.data.data_settings import missing_latents
from pae_framework.errors import Problem
from pae_framework.preflight.machine import Machine, this_machine
from pae_framework.preflight.memory import StageMemory, training_memory
from pae_framework.recipe.components import Component
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath, dotted
from pae_framework.recipe.stage_table import STAGES
from pae_framework.recipe.sweep import expand
from pae_framework.runs.autoguidance_run import guiding_fault
from pae_framework.runs.plan import plan
from pae_framework.runs.record import StageRecord
from pae_framework.tokenizer.tokenizer_settings import ReconstructionSettings


@runtime_checkable
class HasRequirements(Protocol):
    """A component's config, or a section of a recipe, that may need something.

    It speaks for everything below it. If it has ``fetch()``, that downloads what is missing (see
    :class:`~pae_framework.config.ComponentConfig`).
    """

    def missing(self) -> str | None:
        """What is missing on this machine; None: nothing."""


def members_of(loaded: LoadedRecipe) -> list[LoadedRecipe]:
    """The recipes that are run for this one: itself, or the members of its sweep."""
    return [member.loaded for member in expand(loaded)] or [loaded]


def unfinished_stages(loaded: LoadedRecipe, stages_dir: Path | None) -> frozenset[str]:
    """Names of a recipe's stages that are not done in a directory of stages; None: all."""
    return frozenset(
        stage.name
        for stage in plan(loaded.recipe, loaded.registry)
        if stages_dir is None or not StageRecord(stages_dir / stage.folder).done
    )


def missing_requirements(
    recipes: Sequence[LoadedRecipe], stages_dir: Path | None = None, machine: Machine | None = None
) -> list[Problem]:
    """What is missing on this machine, so that recipes cannot run; each problem once.

    Args:
        recipes: the recipes that are to run.
        stages_dir: where their stages are kept; stages that are done there need nothing.
        machine: the machine; by default this one.
    """
    machine = machine or this_machine()
    found = (
        problem
        for loaded in recipes
        for problem in _missing(loaded, machine, unfinished_stages(loaded, stages_dir))
    )
    return list(dict.fromkeys(found))


def low_memory(
    recipes: Sequence[LoadedRecipe], stages_dir: Path | None = None, machine: Machine | None = None
) -> list[Problem]:
    """Stages whose estimated memory exceeds what there is by less than the estimate's error.

    They deserve a warning; the run may start. Arguments as in :func:`missing_requirements`.
    """
    machine = machine or this_machine()
    found = (
        problem
        for loaded in recipes
        for problem in _memory(loaded, machine, unfinished_stages(loaded, stages_dir), 1, 2)
    )
    return list(dict.fromkeys(found))


def _missing(loaded: LoadedRecipe, machine: Machine, stages: Collection[str]) -> Iterator[Problem]:
    recipe, place = loaded.recipe, loaded.root.place
    for path, part in components_with_requirements(recipe):
        if not any(STAGES[stage].needs(path, recipe) for stage in stages):
            continue
        if (missing := part.missing()) is not None:
            yield Problem(missing, dotted(path), place(path))
    for path, file in named_files(recipe):  # each is copied by the stage of its section
        if path[0] in stages and (missing := missing_file(file)) is not None:
            yield Problem(missing, dotted(path), place(path))
    if "latents" in stages and (folder := recipe.latents.folder) is not None:
        path = ("latents", "folder")
        if (missing := missing_latents(folder)) is not None:
            yield Problem(missing, dotted(path), place(path))
    if stages and recipe.runtime.device == "cuda" and not machine.gpus:
        path = ("runtime", "device")
        hint = "set runtime.device=cpu or runtime.device=auto, or use a machine that has one"
        message = "needs a GPU, but none is visible on this machine"
        yield Problem(message, dotted(path), place(path), hint)
    yield from _memory(loaded, machine, stages, above=2)
    if "sample" in stages and (fault := guiding_fault(recipe, loaded.registry)) is not None:
        path = ("sample", "guidance", "autoguidance")
        yield Problem(fault, dotted(path), place(path))


def named_files(recipe: Recipe) -> Iterator[tuple[KeyPath, str]]:
    """Files of weights and statistics that a recipe names, each with its key path."""
    if (weights := recipe.tokenizer.weights) is not None:
        yield ("tokenizer", "weights"), weights
    if recipe.generator is None:
        return
    if (weights := recipe.generator.weights) is not None:
        yield ("generator", "weights"), weights
    if (statistics := recipe.latents.statistics) is not None:
        yield ("latents", "statistics"), statistics


def missing_file(file: str) -> str | None:
    """A message if a file that a recipe names does not exist; else None."""
    path = Path(file).expanduser()
    return None if path.is_file() else f"no such file: {path}"


def components_with_requirements(recipe: Recipe) -> Iterator[tuple[KeyPath, HasRequirements]]:
    """Every component and section of a recipe that may need something, with its key path.

    Those that are switched off (weight 0) or that no stage uses are left out.
    """
    yield from _with_requirements(_in_use(recipe), ())


def _in_use(recipe: Recipe) -> Recipe:
    """The recipe without the sections that its stages do not use."""
    tokenizer = recipe.tokenizer
    unused: dict[str, object] = {
        "regularizers": tokenizer.active_regularizers,
        "adversarial": tokenizer.active_adversarial,
    }
    if tokenizer.weights is not None:  # loaded, not trained
        unused = {"refinement": None, "adversarial": None, "regularizers": {}}
    elif tokenizer.target == "raw":
        unused |= {"refinement": None}
    data = recipe.data
    if not _reads_training_images(recipe):
        data = data.model_copy(update={"train": None})
    used = {"tokenizer": tokenizer.model_copy(update=unused), "data": data}
    return recipe.model_copy(update=used)


def _reads_training_images(recipe: Recipe) -> bool:
    """Whether a stage reads the training images, or must count their classes."""
    if recipe.tokenizer.weights is None:
        return True
    encoders = [recipe.extractor, recipe.tokenizer.encoder]
    if any(encoder is not None and encoder.train is not None for encoder in encoders):
        return True
    writes = recipe.generator is not None and recipe.latents.written
    return writes or recipe.data.train.config.expected() is None


def _with_requirements(part: object, path: KeyPath) -> Iterator[tuple[KeyPath, HasRequirements]]:
    if isinstance(part, Component):
        yield path, part.config
    elif isinstance(part, Settings):
        if isinstance(part, HasRequirements):
            yield path, part
            return
        if isinstance(part, ReconstructionSettings):
            yield from _with_requirements(part.active_terms, path)
            return
        for key in type(part).model_fields:
            yield from _with_requirements(getattr(part, key), (*path, key))
    elif isinstance(part, dict):
        for key, entry in part.items():
            yield from _with_requirements(entry, (*path, key))


# --- memory ---------------------------------------------------------------------------------------


def _memory(
    loaded: LoadedRecipe,
    machine: Machine,
    stages: Collection[str],
    above: float,
    up_to: float = math.inf,
) -> Iterator[Problem]:
    """Stages that need more than ``above`` and at most ``up_to`` times the memory there is."""
    device = loaded.recipe.runtime.device
    on_gpu = device == "cuda" or (device == "auto" and bool(machine.gpus))
    available = min(machine.gpus, default=0) if on_gpu else machine.memory
    if not available:
        return
    for stage in training_memory(loaded.recipe):
        if stage.stage in stages and above * available < stage.total <= up_to * available:
            owner = "the GPU has" if on_gpu else "this machine has"
            message = f"{_needed(stage)}; {owner} {gib(available)}"
            place = loaded.root.place(stage.path)
            yield Problem(message, dotted(stage.path), place, _advice(stage, available))


def _needed(stage: StageMemory) -> str:
    bound = "at least" if stage.unknown else "about"
    return (
        f"stage {stage.stage} needs {bound} {gib(stage.total)} of memory: {gib(stage.weights)} for "
        f"weights and optimizer, {gib(stage.activations)} for {stage.images} images at a time "
        "(estimate, right within a factor of two)"
    )


def _advice(stage: StageMemory, available: int) -> str:
    if stage.weights > available:
        return "use a smaller model, or a machine with more memory"
    key = dotted(stage.path)
    return (
        f"set {key}.activation_checkpointing=true, which changes no result; precision=bf16, a "
        "lower batch_size or a higher accumulate save more memory but change the result (a higher "
        "accumulate does not if the stage draws no noise and balances no terms)"
    )


def gib(count: int) -> str:
    """Bytes with their unit, such as ``1.5 GiB``."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if count >= size:
            value = count / size
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{count / 1024:.0f} KiB"
