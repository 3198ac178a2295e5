"""Checks that this machine has what a recipe needs: data, weights, a GPU, memory. No torch.

Everything missing is reported at once, each item with its remedy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Protocol, runtime_checkable

from pae_framework.config import AttentionKernel, ComponentConfig, Settings
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
from pae_framework.runs.autoguidance_run import autoguidance_problem
from pae_framework.runs.plan import downstream_stages
from pae_framework.runs.planned import planned_stages
from pae_framework.runs.record import StageRecord
from pae_framework.system.file_errors import gib
from pae_framework.system.files import file_problem


@runtime_checkable
class HasRequirements(Protocol):
    """A component's config, or a section of a recipe, that may need data, weights or packages.

    It also answers for the settings nested in it. Its ``fetch()``, if it has one, downloads what is
    missing (see :class:`~pae_framework.config.ComponentConfig`).
    """

    def missing(self) -> str | None:
        """Describe what this machine lacks; None if nothing is missing."""


def members_of(loaded: LoadedRecipe) -> list[LoadedRecipe]:
    """The recipes that a run of this one executes: itself, or the members of its sweep."""
    return [member.loaded for member in expand(loaded)] or [loaded]


def unfinished_stages(
    loaded: LoadedRecipe, stages_dir: Path | None, again: Collection[str] = ()
) -> frozenset[str]:
    """Names of the stages that will run.

    Args:
        loaded: the recipe.
        stages_dir: folder of its stages; None: none is done.
        again: stages that run anew although they are done, with all that depend on them.
    """
    if stages_dir is None:
        return frozenset(name for name, stage in STAGES.items() if stage.exists(loaded.recipe))
    stages = planned_stages(loaded, stages_dir)
    anew = downstream_stages(stages, again)
    return frozenset(
        name
        for name, stage in stages.items()
        if name in anew or not StageRecord(stages_dir / stage.folder).done
    )


def missing_requirements(
    recipes: Sequence[LoadedRecipe],
    stages_dir: Path | None = None,
    machine: Machine | None = None,
    again: Collection[str] = (),
    processes: int = 1,
) -> list[Problem]:
    """Everything that keeps the recipes from running on this machine; each problem once.

    Args:
        recipes: the recipes to run.
        stages_dir: folder of their stages; a stage that is done there needs nothing.
        machine: the machine; by default this one.
        again: stages that run anew, with all that depend on them.
        processes: number of processes on it.
    """
    return _for_unfinished(
        partial(_missing, processes=processes), recipes, stages_dir, machine, again
    )


def low_memory(
    recipes: Sequence[LoadedRecipe],
    stages_dir: Path | None = None,
    machine: Machine | None = None,
    again: Collection[str] = (),
    processes: int = 1,
) -> list[Problem]:
    """Stages whose estimated memory exceeds the available memory by less than the estimate's error.

    They are worth a warning; the run may start. Arguments as in :func:`missing_requirements`.
    """
    check = partial(_memory, above=1, up_to=2, processes=processes)
    return _for_unfinished(check, recipes, stages_dir, machine, again)


def _for_unfinished(
    check: Callable[[LoadedRecipe, Machine, Collection[str]], Iterator[Problem]],
    recipes: Sequence[LoadedRecipe],
    stages_dir: Path | None,
    machine: Machine | None,
    again: Collection[str],
) -> list[Problem]:
    machine = machine or this_machine()
    found = (
        check(recipe, machine, unfinished_stages(recipe, stages_dir, again)) for recipe in recipes
    )
    return list(dict.fromkeys(chain.from_iterable(found)))


def _missing(
    loaded: LoadedRecipe, machine: Machine, stages: Collection[str], processes: int
) -> Iterator[Problem]:
    recipe, position = loaded.recipe, loaded.root.position
    messages: list[tuple[KeyPath, str | None]] = [
        (path, section.missing())
        for path, section in components_with_requirements(recipe, stages)
        if path not in _trained_before(recipe, stages)
    ]
    for path, file in named_files(recipe):
        if path[0] in stages:  # the stage of a section copies its file
            messages.append((path, missing_file(file)))
    if "latents" in stages and recipe.latents.folder is not None:
        messages.append((("latents", "folder"), missing_latents(recipe.latents.folder)))
    if "sample" in stages:
        path = ("sample", "guidance", "autoguidance")
        messages.append((path, autoguidance_problem(recipe, loaded.registry)))
    messages += (
        ((*path, "attention"), _unusable_kernel(kernel, _on_gpu(recipe, machine)))
        for path, kernel in kernels_of(recipe, stages)
    )
    for path, message in messages:
        if message is not None:
            yield Problem(message, dotted(path), position(path))
    if stages and recipe.runtime.device == "cuda" and not machine.gpus:
        message = "needs a GPU, but none is visible on this machine"
        hint = "set runtime.device=cpu or runtime.device=auto, or use a machine that has one"
        yield Problem(message, "runtime.device", position(("runtime", "device")), hint)
    yield from _memory(loaded, machine, stages, processes, above=2)


def _trained_before(recipe: Recipe, stages: Collection[str]) -> list[KeyPath]:
    """Encoders whose own training is done: later stages load its file, not pretrained weights."""
    done = (STAGES[name] for name in ("extractor", "encoder", "teacher") if name not in stages)
    return [stage.train_path[:-1] for stage in done if stage.train_path and stage.exists(recipe)]


def kernels_of(
    recipe: Recipe, stages: Collection[str]
) -> Iterator[tuple[KeyPath, AttentionKernel]]:
    """Key path and attention kernel of each component that some stages use, and of the section of a
    composed tokenizer, whose kernel its projector, deprojector and refinement use.
    """
    for path, config in components_with_requirements(recipe, stages):
        if isinstance(config, ComponentConfig):
            yield path, config.attention_kernel()
    if (composed := recipe.composed) is None or not composed.bottleneck.config.projects:
        return
    around = ("tokenizer", "bottleneck")  # who reads it builds the layers around it
    if any(STAGES[stage].needs(around, recipe) for stage in stages):
        yield ("tokenizer",), composed.attention


def _unusable_kernel(kernel: AttentionKernel, on_gpu: bool) -> str | None:
    """Why an attention kernel cannot be used here; None if nothing is known."""
    if kernel != "xformers":
        return None
    if find_spec(kernel) is None:
        needed = f"the package {kernel}: pip install 'pae-framework[{kernel}]'"
    elif not on_gpu:
        needed = "a GPU: use a machine that has one"
    else:
        return None
    return f"`attention: {kernel}` needs {needed}, or set attention=sdpa"


def _on_gpu(recipe: Recipe, machine: Machine) -> bool:
    device = recipe.runtime.device
    return device == "cuda" or (device == "auto" and bool(machine.gpus))


def images_left_out(recipes: Sequence[LoadedRecipe]) -> list[str]:
    """What is where the images are but is not read, one line per data source."""
    lines = (
        f"data.{split}: left out: {left_out}"
        for loaded in recipes
        for split, source in (
            ("train", loaded.recipe.data.train),
            ("test", loaded.recipe.data.test),
        )
        if source.config.missing() is None and (left_out := source.config.left_out())
    )
    return list(dict.fromkeys(lines))


def named_files(recipe: Recipe) -> Iterator[tuple[KeyPath, str]]:
    """Key paths and names of the files of weights and statistics in a recipe."""
    composed = recipe.composed
    if composed is not None and (weights := composed.weights) is not None:
        yield ("tokenizer", "weights"), weights
    elif composed is not None and (weights := composed.initial_weights) is not None:
        yield ("tokenizer", "initial_weights"), weights
    if recipe.generator is None:
        return
    if (weights := recipe.generator.weights) is not None:
        yield ("generator", "weights"), weights
    if (statistics := recipe.latents.statistics) is not None:
        yield ("latents", "statistics"), statistics


def missing_file(file: str) -> str | None:
    """A message if a file named in a recipe does not exist; else None."""
    return file_problem(Path(file).expanduser(), folder=True)


def components_with_requirements(
    recipe: Recipe, stages: Collection[str] | None = None
) -> Iterator[tuple[KeyPath, HasRequirements]]:
    """Key path and config of every component or section that may need something.

    Args:
        recipe: the recipe.
        stages: only what one of these stages reads; None: all stages of the recipe.
    """
    if stages is None:
        stages = [name for name, stage in STAGES.items() if stage.exists(recipe)]
    sections = dict(recipe)
    if (composed := recipe.composed) is not None:
        active = {
            "reconstruction": composed.reconstruction.active_terms,
            "regularizers": composed.active_regularizers,
            "adversarial": composed.active_adversarial,
        }
        sections["tokenizer"] = {**dict(composed), **active}
    for path, section in _with_requirements(sections, ()):
        follows = path[0] == "trackers" and stages
        if follows or any(STAGES[stage].needs(path, recipe) for stage in stages):
            yield path, section


def _with_requirements(section: object, path: KeyPath) -> Iterator[tuple[KeyPath, HasRequirements]]:
    if isinstance(section, Component):
        yield from _with_requirements(section.config, path)
        section = {key: value for key, value in section if key != "config"}
    if isinstance(section, HasRequirements):
        yield path, section
    elif isinstance(section, Settings | dict):
        for key, entry in dict(section).items():
            yield from _with_requirements(entry, (*path, key))


# --- memory ---------------------------------------------------------------------------------------


def _memory(
    loaded: LoadedRecipe,
    machine: Machine,
    stages: Collection[str],
    processes: int,
    above: float,
    up_to: float = math.inf,
) -> Iterator[Problem]:
    """Stages that need more than ``above`` and at most ``up_to`` times the available memory."""
    on_gpu = _on_gpu(loaded.recipe, machine)
    available = min(machine.gpus, default=0) if on_gpu else machine.memory
    if not available:
        return
    for stage in training_memory(loaded.recipe):
        if stage.stage not in stages:
            continue
        path, where = dotted(stage.path), loaded.root.position(stage.path)
        on_one, copy = (1, 0) if on_gpu else (processes, stage.checkpoint)
        if above * available < stage.needed(processes, on_one, copy) <= up_to * available:
            owner = "the GPU has" if on_gpu else "this machine has"
            message = f"{stage.text(processes, on_one, copy)}; {owner} {gib(available)}"
            yield Problem(message, path, where, _advice(stage, available - copy))
        memory = machine.memory
        if on_gpu and memory and above * memory < stage.checkpoint <= up_to * memory:
            message = (
                f"stage {stage.stage} needs about {gib(stage.checkpoint)} of main memory for the "
                f"copy that a checkpoint is written from; this machine has {gib(memory)}"
            )
            yield Problem(message, path, where, "use a machine with more memory")


def _advice(stage: StageMemory, available: int) -> str:
    if stage.weights > available:
        return "use a smaller model, or a machine with more memory"
    key = dotted(stage.path)
    return (
        f"set {key}.activation_checkpointing=true, which changes no result; precision=bf16, a "
        "lower batch_size or a higher accumulate save more memory but change the result (a higher "
        "accumulate only in stages with noise or adaptive weights)"
    )
