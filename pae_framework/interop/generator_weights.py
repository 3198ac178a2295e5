"""Weights of generators trained elsewhere: read, matched with a recipe, loaded instead of trained.

An official LightningDiT file is a torch file with the weights under ``ema`` and ``model``, or
safetensors; our own ``weights.safetensors`` is read too. Wrapper prefixes (``module.``,
``_orig_mod.``) are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pae_framework.build import META, build_generator
from pae_framework.contracts import Generator
from pae_framework.errors import CheckpointError
from pae_framework.execution.context import StageContext
from pae_framework.execution.run_latents import load_statistics_for
from pae_framework.files import write_json
from pae_framework.interop.provenance import (
    ENTRY,
    describe_file,
    original_name,
    require_file,
    write_copy,
)
from pae_framework.recipe.derived import latent_shape
from pae_framework.tensor_files import differences, nonfinite_names, read_entry, save_tensors

ENTRIES = ("ema", "model")
"""Where torch files keep weights; official programs sample with the average, ``ema``."""


@dataclass(frozen=True)
class OfficialGenerator:
    """Weights read from a file, by the file's names without wrapper prefixes.

    ``entry`` is the one of :data:`ENTRIES` that held them; None: the file is the state dict.
    """

    path: Path
    entry: str | None
    tensors: dict[str, Tensor]


def load_generator_weights(context: StageContext) -> None:
    """Run stage ``generator`` with ``generator.weights``: check the file and write its weights.

    Writes ``weights.safetensors``, and ``weights.json``, which describes the file. Reads no image
    and no latent.

    Raises:
        DataError: there is no such file.
        CheckpointError: it is damaged, not finite or for another network; says which.
    """
    component = context.recipe.generator
    assert component is not None
    assert component.weights is not None
    official = read_official(require_file(component.weights, "generator.weights"))
    weights = match_state_dict(official, meta_generator(context))
    save_tensors(weights, context.directory / "weights.safetensors")
    found = describe_file(official.path)
    about = {"entry": found.pop(ENTRY, official.entry), "tensors": len(weights)}
    write_json(context.directory / "weights.json", {**found, **about})
    context.update_record(weights=original_name(found))


def validate_and_copy(
    file: Path, statistics: Path | None, context: StageContext, copy: Path, statistics_copy: Path
) -> None:
    """Check a generator and the statistics it was trained with, then write copies of both.

    The copies are safetensors, the generator's with the names of ``file``; both name the original.

    Args:
        file: the generator's weights, ours or official.
        statistics: of the latents it was trained on; None: those of the run.
        context: of the run the generator is for.
        copy: where to write the weights.
        statistics_copy: where to write the statistics.

    Raises:
        CheckpointError: the weights are damaged, not finite or for another network; says which.
        DataError: the statistics are damaged, not finite, or have another number of channels.
    """
    official = read_official(file)
    match_state_dict(official, meta_generator(context))
    latent = latent_shape(context.recipe)
    found = None if statistics is None else load_statistics_for(latent, statistics)
    write_copy(official.tensors, file, copy, official.entry)
    if statistics is not None and found is not None:
        write_copy({"mean": found.mean, "std": found.std}, statistics, statistics_copy)


def read_official(path: Path) -> OfficialGenerator:
    """Read a generator's weights, ours or official: safetensors, or a torch file.

    Raises:
        CheckpointError: the file is damaged, holds more than tensors and plain values, or has no
            weights.
    """
    entry, tensors = read_entry(path, ENTRIES)
    return OfficialGenerator(path, entry, tensors)


def meta_generator(context: StageContext) -> Generator:
    """The recipe's generator on the meta device: names and shapes, no numbers."""
    recipe = context.recipe
    assert recipe.generator is not None
    with META:
        return build_generator(
            recipe.generator, latent_shape(recipe), context.num_classes, context.registry
        )


def match_state_dict(official: OfficialGenerator, model: Generator) -> dict[str, Tensor]:
    """The weights as the state dict of ``model``, which may be on the meta device.

    Raises:
        CheckpointError: they are for another network, or not finite; says which.
    """
    own, tensors = model.state_dict(), official.tensors
    if not _has_own_names(model, tensors):
        try:
            tensors = model.from_official(tensors)
        except CheckpointError as error:
            raise CheckpointError(f"{official.path}: {error}") from error
    if problems := differences(own, tensors):
        raise CheckpointError(f"{official.path} does not fit:\n  " + "\n  ".join(problems))
    if broken := nonfinite_names(tensors):
        raise CheckpointError(f"{official.path}: weights that are not finite: {broken}")
    return {name: tensors[name].to(value.dtype) for name, value in own.items()}


def _has_own_names(model: Generator, tensors: dict[str, Tensor]) -> bool:
    """Whether the names can only be those our runs write, not those of official files."""
    if type(model).from_official is Generator.from_official:
        return True
    return tensors.keys() == model.state_dict().keys() != model.to_official().keys()
