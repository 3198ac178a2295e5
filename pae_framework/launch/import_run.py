"""Import weights trained elsewhere into a run, which keeps copies of the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pae_framework.errors import DataError, UsageError
from pae_framework.launch.launcher import choose_launcher
from pae_framework.recipe.emit import inline
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.models import Recipe
from pae_framework.registry import Registry
from pae_framework.runs.data_record import read_record
from pae_framework.runs.directory import RECORD, RunDirectory, stages_dir_of
from pae_framework.runs.looking import looking_once
from pae_framework.runs.opened import OpenedRun, open_run
from pae_framework.runs.planned import planned_stages
from pae_framework.system.console import PlainConsole
from pae_framework.system.files import file_problem

FOLDER = "imported"
"""Folder in the run with copies of the imported files."""
RELEASED = ("checkpoints/ep-last.pt", "*/checkpoints/ep-last.pt", "AE-models/*.pt")
"""Where PAE's configurations and its collection of models keep tokenizers, in a folder."""
ANY_DEVICE = "runtime.device=auto"
"""Loading weights needs no GPU, even if the recipe's training does."""


@looking_once()
def import_tokenizer(
    file: Path,
    recipe: str,
    overrides: Sequence[str],
    run_dir: Path | None,
    registry: Registry,
    command: str,
    console: PlainConsole,
    plugins: Sequence[Path] = (),
) -> Path:
    """Make a run from a released tokenizer, finished up to its tokenizer stage. Needs no images.

    The whole file is checked before anything is written. The run's recipe names its copy of the
    file in ``tokenizer.weights``.

    Args:
        file: the released file, or the ``tokenizer.safetensors`` of a run; the index of several
            files, a folder with one set of weights, or a download of the released files.
        recipe: the recipe it was trained with: a file, or the name of a shipped recipe.
        overrides: ``key.path=value``, applied to that recipe.
        run_dir: the run's directory; None: ``runs/<recipe name>-imported``.
        registry: the installed plugins.
        command: what the user typed, for the record.
        console: shows progress.
        plugins: plugin files, for the recipe.

    Returns:
        The run's directory.

    Raises:
        UsageError: there is no such file, the recipe is invalid or a sweep, or the directory holds
            something else.
        DataError: the file contains no encoder, and this machine lacks the weights of the recipe's.
        CheckpointError: the file is damaged or for another recipe; lists the differences.
    """
    if problem := file_problem(file, folder=True):
        raise UsageError(problem)
    file = released_file(file)
    overrides = [ANY_DEVICE, *overrides]
    loaded = load_recipe(recipe, overrides, registry, plugins)
    if loaded.recipe.sweep is not None:
        raise UsageError(f"{loaded.recipe.name} is a sweep; import into a recipe without `sweep:`")
    if loaded.recipe.composed is None:
        raise UsageError(
            f"the tokenizer of {loaded.recipe.name} is one component, which loads its own weights; "
            "import into a recipe with `tokenizer.encoder`"
        )
    path = run_dir or Path("runs") / f"{loaded.recipe.name}-imported"
    _claim(path, loaded.recipe.name)
    from pae_framework.interop.tokenizer_weights import validate_and_copy

    copy = path.absolute() / FOLDER / "tokenizer.safetensors"
    summary, has_encoder = validate_and_copy(file, loaded.recipe, loaded.registry, copy)
    console.print(summary, soft_wrap=True, markup=False)

    changes = [f"tokenizer.weights={inline(str(copy))}"]
    if has_encoder and "weights" in type(loaded.recipe.composed.encoder.config).model_fields:
        changes.append("tokenizer.encoder.weights=none")
    loaded = load_recipe(recipe, [*overrides, *changes], registry, plugins)
    directory = RunDirectory.at(path, stages_dir_of(path))
    choose_launcher(console).run(loaded, directory, command, until="tokenizer")
    return path


def released_file(path: Path) -> Path:
    """The tokenizer in a folder of released files (:data:`RELEASED`); any other path as it is.

    Raises:
        UsageError: the folder holds several.
    """
    found = sorted({file for name in RELEASED for file in path.glob(name) if file.is_file()})
    if len(found) > 1:
        names = ", ".join(str(file.relative_to(path)) for file in found)
        raise UsageError(f"{path} holds several released tokenizers ({names}); name one of them")
    return found[0] if found else path


def describe_imported(run: Path, registry: Registry, console: PlainConsole) -> str:
    """Mean, deviation and root mean square of a few latents of an imported tokenizer, in a line.

    Without images on this machine, why they are not known.
    """
    opened = open_run(run, registry)
    if (missing := opened.loaded.recipe.data.test.config.missing()) is not None:
        return f"latents were not measured: data.test: {missing}"
    from pae_framework.execution.context import StageContext, configure_torch
    from pae_framework.interop.imported_latents import describe_latents

    configure_torch(opened.loaded.recipe.runtime)
    try:
        return describe_latents(StageContext.of_finished_run(opened, "tokenizer", console))
    except DataError as error:
        return f"latents were not measured: {error}"


def _claim(path: Path, name: str) -> None:
    """Reject a directory unless it is new or holds an import with this recipe."""
    if path.is_dir() and not (path / RECORD).exists():
        visible = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}
        if visible == {FOLDER}:  # an import that was stopped before it created the run
            return
    RunDirectory.at(path).claim(name)
    if (path / RECORD).exists() and not (path / FOLDER).is_dir():
        raise UsageError(f"{path} holds a run that was not imported; choose another --run-dir")


# --- a generator ----------------------------------------------------------------------------------


@looking_once()
def import_generator(
    file: Path,
    run: Path,
    statistics: Path | None,
    overrides: Sequence[str],
    registry: Registry,
    command: str,
    console: PlainConsole,
    plugins: Sequence[Path] = (),
) -> None:
    """Load a generator trained elsewhere into a run, as if its generator stage had trained it.

    The whole files are checked before anything is written. The run's recipe names its copies of the
    files.

    Args:
        file: the generator's weights, in our or the official layout: a file, the index of several,
            or a folder with one set of weights.
        run: directory of a run whose tokenizer is finished.
        statistics: of the latents the generator was trained on; None: those of the run's latents.
        overrides: ``key.path=value``, applied to the run's recipe.
        registry: the installed plugins.
        command: what the user typed, for the record.
        console: shows progress.
        plugins: plugin files, for the recipe.

    Raises:
        UsageError: there is no such file or run, its recipe has no generator, its tokenizer is not
            finished, or there are neither statistics nor images to measure them on.
        CheckpointError: the weights are damaged, not finite or for another network; lists the
            differences.
        DataError: the statistics are damaged, not finite, or have another number of channels.
    """
    if problem := file_problem(file, folder=True):
        raise UsageError(problem)
    if statistics is not None and (problem := file_problem(statistics)):
        raise UsageError(problem)
    opened = open_run(run, registry)
    folder = run.absolute() / FOLDER
    copy, statistics_copy = folder / "generator.safetensors", folder / "latents_stats.safetensors"
    changes = [*overrides, f"generator.weights={inline(str(copy))}"]
    if statistics is not None:
        changes.append(f"latents.statistics={inline(str(statistics_copy))}")
    opened = _with_changes(opened, changes, plugins)
    from pae_framework.execution.context import StageContext, configure_torch

    configure_torch(opened.loaded.recipe.runtime)
    context = StageContext.of_finished_run(opened, "tokenizer", console)
    _require_data(opened)
    from pae_framework.interop.generator_weights import validate_and_copy

    summary = validate_and_copy(file, statistics, context, copy, statistics_copy)
    console.print(summary, soft_wrap=True, markup=False)
    choose_launcher(console).run(opened.loaded, opened.directory, command, until="generator")


def _with_changes(opened: OpenedRun, changes: Sequence[str], plugins: Sequence[Path]) -> OpenedRun:
    """The run with changes of its recipe, added to the overrides it was started with."""
    recipe, path = opened.loaded.recipe, opened.directory.path
    if recipe.generator is None and not any(text.startswith("generator=") for text in changes):
        raise UsageError(
            f"the recipe of {path} has no generator; set that of the file, for example "
            "'generator={use: lightningdit, preset: XL/1, train: {steps: 1}}'"
        )
    changes = [*_changes_for_import(recipe), *changes]
    loaded = load_recipe(path / "resolved.yaml", changes, opened.loaded.registry, plugins)
    earlier = opened.directory.text("overrides.txt").splitlines()
    loaded = replace(
        loaded,
        text=opened.directory.text("recipe.yaml"),
        overrides=tuple(dict.fromkeys([*earlier, *changes])),
    )
    stages = planned_stages(loaded, opened.directory.store)
    return replace(opened, loaded=loaded, plan=stages)


def _changes_for_import(recipe: Recipe) -> list[str]:
    """Overrides that remove earlier checkpoints of the generator, and the need for a GPU."""
    changes = [ANY_DEVICE] if recipe.runtime.device == "cuda" else []
    if recipe.sample is not None and recipe.sample.at_steps:
        changes.append("sample.at_steps=[]")
    return changes


def _require_data(opened: OpenedRun) -> None:
    """Without training images, latent statistics and the number of classes must be known."""
    train = opened.loaded.recipe.data.train.config
    if (missing := train.missing()) is None:
        return
    latents = opened.directory.stage(opened.plan["latents"])
    if opened.loaded.recipe.latents.encoded and not latents.done:
        raise UsageError(
            "latent statistics are missing; pass the generator's statistics file with "
            f"--statistics, or provide the training images (data.train: {missing})"
        )
    folders = (opened.directory.stage(stage).path for stage in opened.plan.values())
    if train.expected() is None and read_record(folders, "train") is None:
        raise UsageError(
            f"the number of classes is unknown: data.train: {missing}; without images, set "
            "`images` and `classes` in data.train (image_folder)"
        )
