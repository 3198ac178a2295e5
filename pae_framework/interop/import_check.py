"""What ``pae import`` needs of torch: check files against a recipe, and keep copies of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pae_framework.errors import DataError
from pae_framework.execution.context import StageContext
from pae_framework.execution.run_latents import load_statistics_for
from pae_framework.interop import generator_weights as loaded_generator
from pae_framework.interop.provenance import ENTRY, origin
from pae_framework.interop.released_layout import ReleasedTokenizer, read_released
from pae_framework.interop.tokenizer_weights import fitting
from pae_framework.plugins import Registry
from pae_framework.recipe.derived import latent_shape
from pae_framework.recipe.models import Recipe
from pae_framework.tensor_files import save_tensors


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
    """Write what was read from ``file``."""
    _write(released.state, origin(file), copy)


def check_and_keep_generator(
    file: Path, statistics: Path | None, context: StageContext, copy: Path, statistics_copy: Path
) -> None:
    """Check a generator, and the statistics it was trained with, then keep copies of both.

    The copies are safetensors, the generator's in the layout it came in; both say where they came
    from.

    Args:
        file: the generator's weights, ours or official.
        statistics: of the latents it was trained on; None: those of the run.
        context: of the run the generator is for.
        copy: where the weights are kept.
        statistics_copy: where the statistics are.

    Raises:
        CheckpointError: the weights are damaged, not finite or of another network; says of which.
        DataError: the statistics are damaged, not finite, or have another number of channels.
    """
    official = loaded_generator.read_official(file)
    loaded_generator.fitting(official, loaded_generator.meta_generator(context))
    latent = latent_shape(context.recipe)
    found = None if statistics is None else load_statistics_for(latent, statistics)
    entry = {} if official.entry is None else {ENTRY: official.entry}
    _write(official.tensors, origin(file) | entry, copy)
    if statistics is not None and found is not None:
        _write({"mean": found.mean, "std": found.std}, origin(statistics), statistics_copy)


def _write(tensors: Mapping[str, Tensor], metadata: dict[str, str], copy: Path) -> None:
    """Write a copy.

    One of the same file that is there already stays as it is, byte for byte: the run's stages are
    known by it.
    """
    if not (copy.is_file() and origin(copy) == metadata):
        save_tensors(tensors, copy, metadata)
