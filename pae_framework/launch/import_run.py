"""What ``pae import`` does: a file that others trained becomes a run that stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from pae_framework.errors import UsageError
from pae_framework.launch.launcher import choose_launcher
from pae_framework.plugins import Registry
from pae_framework.recipe.emit import inline
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.models import Recipe
from pae_framework.runs.directory import RECORD, RunDirectory, stages_dir_of
from pae_framework.runs.opened import OpenedRun, open_run
from pae_framework.runs.plan import plan

FOLDER = "imported"
"""Folder of the run that keeps what was imported."""
ANY_DEVICE = "runtime.device=auto"
"""Loading weights needs no GPU, whatever the recipe's training needs."""


def import_tokenizer(
    file: Path,
    recipe: str,
    overrides: Sequence[str],
    run_dir: Path | None,
    registry: Registry,
    command: str,
    console: Console,
) -> Path:
    """Make a run of a released tokenizer, done up to its tokenizer stage. Reads no image.

    The file is checked whole before anything is written. The run keeps a copy of it, and its recipe
    names that copy, so that all later stages go on from there.

    Args:
        file: the released file, or the ``tokenizer.safetensors`` of a run.
        recipe: what it was made for: a recipe file, or the name of a shipped recipe.
        overrides: ``key.path=value``, of that recipe.
        run_dir: where the run is to be; None: ``runs/<recipe name>-imported``.
        registry: what is installed.
        command: what was typed, for the record.
        console: is told what happens.

    Returns:
        The run's directory.

    Raises:
        UsageError: there is no such file, the recipe is wrong or a sweep, or the directory holds
            something else.
        DataError: the file brings no encoder, and the recipe's is not on this machine.
        CheckpointError: the file is damaged or made for another recipe; lists what differs.
    """
    if not file.is_file():
        raise UsageError(f"there is no file {file}")
    given = (ANY_DEVICE, *overrides)
    loaded = load_recipe(recipe, given, registry)
    if loaded.recipe.sweep is not None:
        raise UsageError(f"{loaded.recipe.name} is a sweep; import for a recipe of one run")
    path = run_dir or Path("runs") / f"{loaded.recipe.name}-imported"
    _claim(path, loaded.recipe.name)
    from pae_framework.interop.import_check import check_and_keep

    copy = path.absolute() / FOLDER / "tokenizer.safetensors"
    brings_encoder = check_and_keep(file, loaded.recipe, registry, copy)

    own = _overrides(loaded, copy, brings_encoder)
    loaded = load_recipe(recipe, (*given, *own), registry)
    directory = RunDirectory.at(path, stages_dir_of(path))
    choose_launcher(console).run(loaded, directory, command, until="tokenizer")
    return path


def _claim(path: Path, name: str) -> None:
    """Refuse a directory that holds anything but an import for this recipe, finished or not."""
    directory = RunDirectory.at(path)
    if path.is_dir() and not (path / RECORD).exists():
        visible = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}
        if visible == {FOLDER}:  # an import that was killed before there was a run
            return
    directory.claim(name)
    if (path / RECORD).exists() and not (path / FOLDER).is_dir():
        raise UsageError(f"{path} holds a run that was not imported; choose another --run-dir")


def _overrides(loaded: LoadedRecipe, copy: Path, brings_encoder: bool) -> list[str]:
    """What the run's recipe says besides: the copy, and no other weights of the encoder."""
    overrides = [f"tokenizer.weights={inline(str(copy))}"]
    encoder = type(loaded.recipe.tokenizer.encoder.config)
    if brings_encoder and "weights" in encoder.model_fields:
        overrides.append("tokenizer.encoder.weights=none")
    return overrides


# --- a generator ----------------------------------------------------------------------------------


def import_generator(
    file: Path,
    run: Path,
    statistics: Path | None,
    overrides: Sequence[str],
    registry: Registry,
    command: str,
    console: Console,
) -> None:
    """Give a run a generator that others trained, as if its generator stage had trained it.

    The files are checked whole before anything is written. The run keeps copies of them, and its
    recipe names those.

    Args:
        file: the generator's weights, ours or official.
        run: directory of a run whose tokenizer is done.
        statistics: of the latents the generator was trained on; None: those of the run's latents.
        overrides: ``key.path=value``, of the run's recipe.
        registry: what is installed.
        command: what was typed, for the record.
        console: is told what happens.

    Raises:
        UsageError: there is no such file or run, its recipe has no generator, its tokenizer is not
            done, or there are neither statistics nor images to measure them on.
        CheckpointError: the weights are damaged, not finite or of another network; says of which.
        DataError: the statistics are damaged, not finite, or have another number of channels.
    """
    for given in (file, statistics):
        if given is not None and not given.is_file():
            raise UsageError(f"there is no file {given}")
    opened = open_run(run, registry)
    folder = run.absolute() / FOLDER
    copy, statistics_copy = folder / "generator.safetensors", folder / "latents_stats.safetensors"
    changes = [*overrides, f"generator.weights={inline(str(copy))}"]
    if statistics is not None:
        changes.append(f"latents.statistics={inline(str(statistics_copy))}")
    opened = _changed(opened, changes)
    from pae_framework.execution.context import StageContext

    context = StageContext.of_finished_run(opened, "tokenizer", console)
    _require_data(opened)
    from pae_framework.interop.import_check import check_and_keep_generator

    check_and_keep_generator(file, statistics, context, copy, statistics_copy)
    choose_launcher(console).run(opened.loaded, opened.directory, command, until="generator")


def _changed(opened: OpenedRun, changes: Sequence[str]) -> OpenedRun:
    """The run as its recipe will be; what was written for it first stays on record."""
    recipe, path = opened.loaded.recipe, opened.directory.path
    if recipe.generator is None and not any(text.startswith("generator=") for text in changes):
        raise UsageError(
            f"the recipe of {path} has no generator; say of which network the file is, as in "
            "'generator={use: lightningdit, preset: XL/1, train: {steps: 1}}'"
        )
    needed = [*_without_a_training(recipe), *changes]
    loaded = load_recipe(path / "resolved.yaml", needed, opened.loaded.registry)
    before = (path / "overrides.txt").read_text(encoding="utf-8").splitlines()
    loaded = replace(
        loaded,
        text=(path / "recipe.yaml").read_text(encoding="utf-8"),
        overrides=tuple(dict.fromkeys([*before, *needed])),
    )
    stages = {stage.name: stage for stage in plan(loaded.recipe, loaded.registry)}
    return replace(opened, loaded=loaded, plan=stages)


def _without_a_training(recipe: Recipe) -> list[str]:
    """What a recipe cannot ask of a generator that is loaded, perhaps where there is no GPU."""
    changes = [ANY_DEVICE] if recipe.runtime.device == "cuda" else []
    if recipe.sample is not None and recipe.sample.at_steps:
        changes.append("sample.at_steps=[]")
    return changes


def _require_data(opened: OpenedRun) -> None:
    """Statistics of the latents are given, there, or can be measured; classes can be counted."""
    train = opened.loaded.recipe.data.train.config
    if (missing := train.missing()) is None:
        return
    latents = opened.directory.stage(opened.plan["latents"])
    if opened.loaded.recipe.latents.written and not latents.done:
        raise UsageError(
            f"nothing says how the latents are normalised: give --statistics, the file that came "
            f"with the generator, or the images to measure it on (data.train: {missing})"
        )
    if train.expected() is None:
        raise UsageError(
            f"the number of classes is not known: data.train: {missing}; no images are needed "
            "where the recipe states how many images and classes there are"
        )
