"""What ``pae import`` needs of torch: check a file against a recipe, and keep a copy of it."""

from __future__ import annotations

from pathlib import Path

from pae_framework.errors import DataError
from pae_framework.plugins import Registry
from pae_framework.recipe.models import Recipe
from pae_framework.stages.loaded_tokenizer import fitting, origin
from pae_framework.tensor_files import save_tensors
from pae_framework.tokenizer.released import ReleasedTokenizer, read_released


def check_and_keep(file: Path, recipe: Recipe, registry: Registry, copy: Path) -> bool:
    """Check a released tokenizer against the recipe, then keep a copy of it.

    Returns whether it brings the encoder's weights. The copy is safetensors in the released layout,
    and says where it came from.

    Raises:
        CheckpointError: the file is damaged or made for another recipe; lists what differs.
        DataError: it brings no encoder, and the recipe's is not on this machine.
    """
    released = read_released(file)
    fitting(released, recipe, registry)
    if not released.encoder and (missing := recipe.tokenizer.encoder.config.missing()) is not None:
        raise DataError(f"{file} brings no weights of the encoder: tokenizer.encoder: {missing}")
    keep(released, file, copy)
    return bool(released.encoder)


def keep(released: ReleasedTokenizer, file: Path, copy: Path) -> None:
    """Write what was read from ``file``.

    A copy of the same file that is there already stays as it is, byte for byte: the run's stages
    are known by it.
    """
    metadata = origin(file)
    if not (copy.is_file() and origin(copy) == metadata):
        save_tensors(released.state, copy, metadata)
