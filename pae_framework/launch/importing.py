"""What ``pae import`` does: a file that others trained becomes a run that stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pae_framework.errors import UsageError
from pae_framework.launch.local import LocalLauncher
from pae_framework.plugins import Registry
from pae_framework.recipe.emit import inline
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.runs.directory import RECORD, RunDirectory, kept_store

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
    from pae_framework.stages.importing import check_and_keep

    copy = path.absolute() / FOLDER / "tokenizer.safetensors"
    brings_encoder = check_and_keep(file, loaded.recipe, registry, copy)

    own = _overrides(loaded, copy, brings_encoder)
    loaded = load_recipe(recipe, (*given, *own), registry)
    directory = RunDirectory.at(path, kept_store(path))
    LocalLauncher(console).run(loaded, directory, command, until="tokenizer")
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
