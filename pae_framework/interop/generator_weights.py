"""Stage ``generator`` of a recipe with ``generator.weights``: they are loaded, not trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pae_framework.build import META, build_generator
from pae_framework.contracts import Generator
from pae_framework.errors import CheckpointError
from pae_framework.execution.context import StageContext
from pae_framework.files import write_json
from pae_framework.interop.provenance import ENTRY, describe_file, existing, first_name
from pae_framework.recipe.derived import latent_shape
from pae_framework.tensor_files import differences, read_entry, save_tensors

ENTRIES = ("ema", "model")
"""Where official torch files keep weights; the average is what their own programs sample with."""


@dataclass(frozen=True)
class OfficialGenerator:
    """What a file holds: the weights by the names they have there, without wrapper prefixes, and
    which of :data:`ENTRIES` they are; None: the file is the weights."""

    path: Path
    entry: str | None
    tensors: dict[str, Tensor]


def load_trained(context: StageContext) -> None:
    """Check the file against the recipe and write what it holds as this run's generator.

    ``weights.safetensors``, and ``weights.json``, which says what the file was. No image and no
    latent is read.

    Raises:
        DataError: there is no such file.
        CheckpointError: it is damaged, or of another network; says of which.
    """
    component = context.recipe.generator
    assert component is not None
    assert component.weights is not None
    official = read_official(existing(component.weights, "generator.weights"))
    weights = fitting(official, meta_generator(context))
    save_tensors(weights, context.directory / "weights.safetensors")
    found = describe_file(official.path)
    about = {"entry": found.pop(ENTRY, official.entry), "tensors": len(weights)}
    write_json(context.directory / "weights.json", {**found, **about})
    context.update_record(weights=first_name(found))


def read_official(path: Path) -> OfficialGenerator:
    """Read a generator's weights, ours or official: safetensors, or a torch file.

    Raises:
        CheckpointError: the file is damaged, holds more than tensors and plain values, or no
            weights where official files have them.
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


def fitting(official: OfficialGenerator, model: Generator) -> dict[str, Tensor]:
    """The weights as the state dict of ``model``, which may be on the meta device.

    Raises:
        CheckpointError: they are of another network, or not finite; says which.
    """
    own, tensors = model.state_dict(), official.tensors
    if not _own_names(model, tensors):
        try:
            tensors = model.from_official(tensors)
        except CheckpointError as error:
            raise CheckpointError(f"{official.path}: {error}") from error
    if problems := differences(own, tensors):
        raise CheckpointError(f"{official.path} does not fit:\n  " + "\n  ".join(problems))
    broken = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
    if broken:
        some = ", ".join(broken[:3]) + (", ..." if len(broken) > 3 else "")
        raise CheckpointError(f"{official.path}: weights that are not finite: {some}")
    return {name: tensors[name].to(value.dtype) for name, value in own.items()}


def _own_names(model: Generator, tensors: dict[str, Tensor]) -> bool:
    """Whether these can only be weights as our runs write them, not as official files do."""
    if type(model).from_official is Generator.from_official:
        return True
    return tensors.keys() == model.state_dict().keys() != model.to_official().keys()
