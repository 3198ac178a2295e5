"""Generator weights from other projects: read them, match them with a recipe, load or copy them.

An official LightningDiT file is safetensors, or a torch file with the weights under ``ema`` and
``model``. Our own ``weights.safetensors`` is accepted too. Wrapper prefixes (``module.``,
``_orig_mod.``) are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pae_framework.build import META
from pae_framework.contracts import Generator
from pae_framework.errors import CheckpointError
from pae_framework.execution.artifacts import untrained_generator
from pae_framework.execution.context import StageContext
from pae_framework.execution.run_latents import load_statistics_for
from pae_framework.interop.provenance import (
    ENTRY,
    WEIGHTS,
    describe_file,
    record_source,
    require_file,
    write_copy,
)
from pae_framework.recipe.derived import latent_shape
from pae_framework.tensor_files import differences, nonfinite_names, read_entry, save_tensors

ENTRIES = ("ema", "model")
"""Keys of the weights in torch files; official programs sample with the average, ``ema``."""


def load_generator_weights(context: StageContext) -> None:
    """Stage ``generator`` with ``generator.weights``: check the file and write its weights.

    Writes ``weights.safetensors``, and ``weights.json``, which describes the file. Reads neither
    images nor latents.

    Raises:
        DataError: there is no such file.
        CheckpointError: it is damaged, not finite or for another network.
    """
    component = context.recipe.generator
    assert component is not None
    assert component.weights is not None
    path = require_file(component.weights, "generator.weights")
    entry, tensors = read_entry(path, ENTRIES)
    weights = match_state_dict(tensors, _meta_generator(context), path)
    save_tensors(weights, context.directory / "weights.safetensors")
    description = describe_file(path)
    entry = description.pop(ENTRY, entry)
    record_source(context, WEIGHTS, description, entry=entry, tensors=len(weights))


def validate_and_copy(
    file: Path, statistics: Path | None, context: StageContext, copy: Path, statistics_copy: Path
) -> None:
    """Check a generator and the statistics it was trained with, then write copies of both.

    The copies are safetensors that name the original; the generator's keeps the names of ``file``.

    Args:
        file: the generator's weights, ours or official.
        statistics: of the latents it was trained on; None: those of the run.
        context: of the run the generator is for.
        copy: where to write the weights.
        statistics_copy: where to write the statistics.

    Raises:
        CheckpointError: the weights are damaged, not finite or for another network.
        DataError: the statistics are damaged, not finite, or have another number of channels.
    """
    entry, tensors = read_entry(file, ENTRIES)
    match_state_dict(tensors, _meta_generator(context), file)
    latent = latent_shape(context.recipe)
    measured = None if statistics is None else load_statistics_for(latent, statistics)
    write_copy(tensors, file, copy, entry)
    if statistics is not None and measured is not None:
        write_copy({"mean": measured.mean, "std": measured.std}, statistics, statistics_copy)


def _meta_generator(context: StageContext) -> Generator:
    with META:
        return untrained_generator(context)


def match_state_dict(
    tensors: Mapping[str, Tensor], model: Generator, path: Path
) -> dict[str, Tensor]:
    """The state dict of ``model`` from the tensors of a file with our names or official ones.

    Args:
        tensors: of the file.
        model: may be on the meta device; it is not changed.
        path: of the file, for messages.

    Raises:
        CheckpointError: the tensors are for another network, or not finite.
    """
    expected = model.state_dict()
    if not _has_own_names(model, tensors):
        try:
            tensors = model.from_official(tensors)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
    if problems := differences(expected, tensors):
        raise CheckpointError(f"{path} does not fit:\n  " + "\n  ".join(problems))
    if broken := nonfinite_names(tensors):
        raise CheckpointError(f"{path} contains weights that are not finite: {broken}")
    return {name: tensors[name].to(value.dtype) for name, value in expected.items()}


def _has_own_names(model: Generator, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those that our runs write and not those of official files."""
    if type(model).from_official is Generator.from_official:
        return True
    return tensors.keys() == model.state_dict().keys() != model.to_official().keys()
