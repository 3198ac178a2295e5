"""Generator weights from other projects: read them, match them with a recipe, load or copy them.

An official LightningDiT file is safetensors, or a torch file with the weights under ``ema`` and
``model``. Official programs sample with the average, ``ema``, so an average is preferred. Our own
``weights.safetensors`` is accepted too.
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
from pae_framework.tensor_files import cast_like, differences, save_tensors
from pae_framework.weight_files import FileWeights, read_weights


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
    path = require_file(component.weights, "generator.weights", folder=True)
    model = _meta_generator(context)
    found = read_generator(path, model)
    weights = match_state_dict(found.tensors, model, path)
    save_tensors(weights, context.directory / "weights.safetensors")
    description = describe_file(path)
    entry = description.pop(ENTRY, found.entry)
    record_source(context, WEIGHTS, description, entry=entry, tensors=len(weights))


def validate_and_copy(
    file: Path, statistics: Path | None, context: StageContext, copy: Path, statistics_copy: Path
) -> str:
    """Check a generator and the statistics it was trained with, then write copies of both.

    The copies are safetensors that name the original; the generator's keeps the names of ``file``.

    Args:
        file: the generator's weights, ours or official.
        statistics: of the latents it was trained on; None: those of the run.
        context: of the run the generator is for.
        copy: where to write the weights.
        statistics_copy: where to write the statistics.

    Returns:
        One line: which weights of the file were chosen.

    Raises:
        CheckpointError: the weights are damaged, not finite or for another network.
        DataError: the statistics are damaged, not finite, or have another number of channels.
    """
    model = _meta_generator(context)
    found = read_generator(file, model)
    match_state_dict(found.tensors, model, file)
    latent = latent_shape(context.recipe)
    measured = None if statistics is None else load_statistics_for(latent, statistics)
    write_copy(found.tensors, file, copy, found.entry)
    if statistics is not None and measured is not None:
        write_copy({"mean": measured.mean, "std": measured.std}, statistics, statistics_copy)
    return found.summary


def read_generator(path: Path, model: Generator) -> FileWeights:
    """The weights of a generator in a file: the average, if the file has one.

    Args:
        path: the file, the index of several, or the folder of either.
        model: has the expected names; may be on the meta device.

    Raises:
        CheckpointError: see :func:`~pae_framework.weight_files.read_weights`.
    """
    names = set(model.state_dict())
    if type(model).to_official is not Generator.to_official:
        names |= model.to_official().keys()
    return read_weights(path, "average", names)


def _meta_generator(context: StageContext) -> Generator:
    return untrained_generator(context, META)


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
    return cast_like(expected, tensors, str(path))


def _has_own_names(model: Generator, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are those that our runs write and not those of official files."""
    if type(model).from_official is Generator.from_official:
        return True
    return tensors.keys() == model.state_dict().keys() != model.to_official().keys()
