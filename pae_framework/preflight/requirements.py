"""What a recipe needs from the machine it runs on, as far as it can be known before it runs.

Everything at once, each with what to do: data, weights, a GPU, memory. No torch. A launcher that
submits jobs will add what it needs itself (its commands on the path) to :func:`missing_here`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from pae_framework.config import Settings
from pae_framework.errors import Problem
from pae_framework.preflight.machine import Machine, this_machine
from pae_framework.preflight.memory import StageMemory, training_memory
from pae_framework.recipe.components import Component
from pae_framework.recipe.derived import missing_latents
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath, dotted
from pae_framework.recipe.reads import STAGES, reads
from pae_framework.recipe.sweep import expand
from pae_framework.tokenizer.tokenizer_settings import ReconstructionSettings


@runtime_checkable
class Needy(Protocol):
    """A part of a recipe that may need something: a component's config, or a section that says so.

    It speaks for all it holds. Where it can be downloaded, ``fetch()`` brings it (see
    :class:`~pae_framework.config.ComponentConfig`).
    """

    def missing(self) -> str | None:
        """What is not here; None: nothing."""


def members_of(loaded: LoadedRecipe) -> list[LoadedRecipe]:
    """The recipes that are run for this one: itself, or the members of its sweep."""
    return [member.loaded for member in expand(loaded)] or [loaded]


Stages = Callable[[LoadedRecipe], Collection[str]]
"""Names of the stages of a recipe that are still to be done."""


def all_stages(loaded: LoadedRecipe) -> Collection[str]:
    """Every stage there may be: nothing is done yet."""
    return STAGES


def missing_here(
    members: LoadedRecipe | Sequence[LoadedRecipe],
    machine: Machine | None = None,
    left: Stages = all_stages,
) -> list[Problem]:
    """What a recipe, or any member of its sweep, does not find on this machine: it cannot run.

    Args:
        members: a recipe with all members it may have, or the recipes that are to run.
        machine: the machine; by default this one.
        left: the stages that are still to be done, each asked for what it reads.
    """
    recipes = members_of(members) if isinstance(members, LoadedRecipe) else members
    machine = machine or this_machine()
    found = (problem for one in recipes for problem in _missing(one, machine, left(one)))
    return list(dict.fromkeys(found))


def tight_here(
    members: LoadedRecipe | Sequence[LoadedRecipe],
    machine: Machine | None = None,
    left: Stages = all_stages,
) -> list[Problem]:
    """Stages whose estimated memory is more than there is, but by less than the estimate's error.

    They are worth a warning, and no reason to refuse a run.
    """
    recipes = members_of(members) if isinstance(members, LoadedRecipe) else members
    machine = machine or this_machine()
    found = (problem for one in recipes for problem in _memory(one, machine, left(one), tight=True))
    return list(dict.fromkeys(found))


def _missing(loaded: LoadedRecipe, machine: Machine, stages: Collection[str]) -> Iterator[Problem]:
    for path, part in needy_parts(loaded.recipe):
        if not any(reads(stage, path, loaded.recipe) for stage in stages):
            continue
        if (missing := part.missing()) is not None:
            yield Problem(missing, dotted(path), loaded.root.place(path))
    for path, file in named_files(loaded.recipe):  # each is copied by the stage of its section
        if path[0] in stages and (missing := missing_file(file)) is not None:
            yield Problem(missing, dotted(path), loaded.root.place(path))
    if "latents" in stages:
        yield from _missing_latents(loaded)
    if stages and loaded.recipe.runtime.device == "cuda" and not machine.gpus:
        path = ("runtime", "device")
        hint = "run it on one that has, or say `runtime.device=cpu` or `auto`"
        message = "asks for a GPU, and this machine has none that may be used"
        yield Problem(message, dotted(path), loaded.root.place(path), hint)
    yield from _memory(loaded, machine, stages, tight=False)


def _missing_latents(loaded: LoadedRecipe) -> Iterator[Problem]:
    """The folder of latents that the generator is to be trained on."""
    folder, path = loaded.recipe.latents.folder, ("latents", "folder")
    if loaded.recipe.generator is None or folder is None:
        return
    if (missing := missing_latents(folder)) is not None:
        yield Problem(missing, dotted(path), loaded.root.place(path))


def named_files(recipe: Recipe) -> Iterator[tuple[KeyPath, str]]:
    """Files of what was trained elsewhere, each with the key path of the value that names it."""
    if (weights := recipe.tokenizer.weights) is not None:
        yield ("tokenizer", "weights"), weights
    if recipe.generator is None:
        return
    if (weights := recipe.generator.weights) is not None:
        yield ("generator", "weights"), weights
    if (statistics := recipe.latents.statistics) is not None:
        yield ("latents", "statistics"), statistics


def missing_file(file: str) -> str | None:
    """Say that a file which a recipe names is not there; None: it is."""
    path = Path(file).expanduser()
    return None if path.is_file() else f"no such file: {path}"


def needy_parts(recipe: Recipe) -> Iterator[tuple[KeyPath, Needy]]:
    """Every part of a recipe that can say what it needs, with its key path.

    Parts that are switched off (weight 0) or that no stage uses need nothing.
    """
    yield from _needy(_in_use(recipe), ())


def _in_use(recipe: Recipe) -> Recipe:
    """The recipe without what its stages do not touch."""
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
    """Whether a stage reads them, or must count their classes."""
    if recipe.tokenizer.weights is None:
        return True
    encoders = [recipe.extractor, recipe.tokenizer.encoder]
    if any(encoder is not None and encoder.train is not None for encoder in encoders):
        return True
    writes = recipe.generator is not None and recipe.latents.written
    return writes or recipe.data.train.config.expected() is None


def _needy(part: object, path: KeyPath) -> Iterator[tuple[KeyPath, Needy]]:
    if isinstance(part, Component):
        yield path, part.config
    elif isinstance(part, Settings):
        if isinstance(part, Needy):
            yield path, part
            return
        if isinstance(part, ReconstructionSettings):
            yield from _needy(part.active_terms, path)
            return
        for key in type(part).model_fields:
            yield from _needy(getattr(part, key), (*path, key))
    elif isinstance(part, dict):
        for key, entry in part.items():
            yield from _needy(entry, (*path, key))


# --- memory ---------------------------------------------------------------------------------------


def _memory(
    loaded: LoadedRecipe, machine: Machine, stages: Collection[str], tight: bool
) -> Iterator[Problem]:
    device = loaded.recipe.runtime.device
    on_gpu = device == "cuda" or (device == "auto" and bool(machine.gpus))
    if on_gpu and not machine.gpus:
        return  # there is no GPU to compare with
    there = min(machine.gpus) if on_gpu else machine.memory
    if not there:
        return
    for stage in training_memory(loaded.recipe):
        if stage.stage not in stages:
            continue
        # The estimate is right within a factor of two.
        if (there < stage.total <= 2 * there) if tight else stage.total > 2 * there:
            where = loaded.root.place(stage.path)
            owner = "the GPU has" if on_gpu else "this machine has"
            message = f"{_words(stage)}; {owner} {gib(there)}"
            yield Problem(message, dotted(stage.path), where, _advice(stage, there))


def _words(stage: StageMemory) -> str:
    bound = "at least" if stage.unknown else "about"
    return (
        f"stage {stage.stage} takes {bound} {gib(stage.total)} of memory: {gib(stage.weights)} for "
        f"weights and optimiser, {gib(stage.activations)} for {stage.images} images at once "
        "(an estimate, right within a factor of two)"
    )


def _advice(stage: StageMemory, there: int) -> str:
    if stage.weights > there:
        return "a smaller model, or a machine with more memory"
    return (
        "say `activation_checkpointing: true`, which changes no result; `precision: bf16`, a lower "
        "`batch_size` or a higher `accumulate` save more, but train anew (`accumulate` to the same "
        "result only where a stage draws no noise and balances no terms)"
    )


def gib(count: int) -> str:
    """Bytes in words."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if count >= size:
            value = count / size
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{count / 1024:.0f} KiB"
