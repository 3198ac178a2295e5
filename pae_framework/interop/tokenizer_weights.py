"""Released PAE tokenizers: their files read, matched with a recipe, and loaded or written.

A file holds one state dict: ``delta_encoder.``, ``latent_compressor.``, ``latent_decompressor.``
and ``decoder.`` with the names of our :class:`Tokenizer` and, unless it was saved without,
``encoder.`` with the frozen encoder's names in its transformers class (PAE with transformers 4.57).
A torch file keeps it under ``model``; an ``ema`` beside it is ignored, as in PAE's own loader.
Wrapper prefixes (``module.``, ``_orig_mod.``) may precede every name. Our own
``tokenizer.safetensors`` is such a file without encoder; a bottleneck with statistics adds
``bottleneck.`` to either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pae_framework.build import meta_tokenizer
from pae_framework.contracts import Encoder
from pae_framework.errors import CheckpointError, DataError
from pae_framework.execution.context import StageContext
from pae_framework.files import write_json
from pae_framework.interop.provenance import (
    describe_file,
    original_name,
    require_file,
    write_copy,
)
from pae_framework.plugins import Registry
from pae_framework.recipe.models import Recipe
from pae_framework.tensor_files import differences, nonfinite_names, read_checkpoint, save_tensors
from pae_framework.tokenizer.model import Tokenizer

ENCODER = "encoder."
"""Prefix of the frozen encoder's names."""


@dataclass(frozen=True)
class ReleasedTokenizer:
    """Contents of a file: ``tokenizer`` without the encoder, and ``encoder`` by the file's names
    without the prefix ``encoder.``, empty if the file has none; ``source`` is for messages."""

    source: str
    tokenizer: Mapping[str, Tensor]
    encoder: Mapping[str, Tensor]

    @property
    def state(self) -> dict[str, Tensor]:
        """The file's one state dict, without wrapper prefixes."""
        return {**self.tokenizer, **{ENCODER + name: x for name, x in self.encoder.items()}}


@dataclass(frozen=True)
class TokenizerWeights:
    """State dicts of our modules: ``tokenizer``, and ``encoder`` if the file contains it."""

    tokenizer: dict[str, Tensor]
    encoder: dict[str, Tensor] | None


def load_tokenizer_weights(context: StageContext) -> None:
    """Run stage ``tokenizer`` with ``tokenizer.weights``: check the file and write its weights.

    Writes ``tokenizer.safetensors``; ``encoder.safetensors`` if the file contains the encoder; and
    ``weights.json``, which describes the file. Reads no image.

    Raises:
        DataError: there is no such file.
        CheckpointError: it is damaged, or made for another recipe; lists what differs.
    """
    recipe = context.recipe
    assert recipe.tokenizer.weights is not None
    path = require_file(recipe.tokenizer.weights, "tokenizer.weights")
    released = read_released(path)
    weights = match_recipe(released, recipe, context.registry)
    save_tensors(weights.tokenizer, context.directory / "tokenizer.safetensors")
    if weights.encoder is not None:
        save_tensors(weights.encoder, context.directory / "encoder.safetensors")
    description = {
        **describe_file(path),
        "layout": f"tokenizer {'with' if released.encoder else 'without'} encoder",
        "tensors": len(released.tokenizer),
        "encoder_tensors": len(released.encoder),
    }
    write_json(context.directory / "weights.json", description)
    context.update_record(weights=original_name(description))


def validate_and_copy(file: Path, recipe: Recipe, registry: Registry, copy: Path) -> bool:
    """Check a released tokenizer against the recipe, then write a copy that names the original.

    The copy is safetensors in the released layout. Returns whether it contains the encoder.

    Raises:
        CheckpointError: the file is damaged or made for another recipe; lists what differs.
        DataError: it contains no encoder, and the recipe's is not on this machine.
    """
    released = read_released(file)
    match_recipe(released, recipe, registry)
    if not released.encoder and (missing := recipe.tokenizer.encoder.config.missing()) is not None:
        raise DataError(
            f"{file} does not contain the encoder's weights: tokenizer.encoder: {missing}"
        )
    write_copy(released.state, file, copy)
    return bool(released.encoder)


def read_released(path: Path) -> ReleasedTokenizer:
    """Read a released tokenizer, or one of ours: safetensors, or a torch file.

    Raises:
        CheckpointError: the file is missing or damaged, holds more than tensors and plain values,
            or has no weights under ``model``.
    """
    tensors = read_checkpoint(path)
    encoder = {
        name.removeprefix(ENCODER): tensor
        for name, tensor in tensors.items()
        if name.startswith(ENCODER)
    }
    tokenizer = {name: x for name, x in tensors.items() if not name.startswith(ENCODER)}
    return ReleasedTokenizer(str(path), tokenizer, encoder)


def match_recipe(
    released: ReleasedTokenizer, recipe: Recipe, registry: Registry
) -> TokenizerWeights:
    """The weights as state dicts of the recipe's tokenizer and encoder.

    Raises:
        CheckpointError: the file was made for another recipe; lists what differs.
    """
    encoder = recipe.tokenizer.encoder
    if released.encoder and encoder.train is not None:
        raise CheckpointError(
            f"{released.source} contains an encoder, but the recipe trains its own "
            f"({encoder.use}: tokenizer.encoder.train)"
        )
    weights = match_state_dict(released, meta_tokenizer(recipe, registry))
    if not released.encoder and getattr(encoder.config, "weights", None) == "none":
        raise CheckpointError(
            f"{released.source} does not contain the encoder's weights, and the recipe loads none; "
            "set tokenizer.encoder.weights=<the weights the tokenizer was trained with>"
        )
    return weights


def match_state_dict(released: ReleasedTokenizer, tokenizer: Tokenizer) -> TokenizerWeights:
    """The weights as state dicts of ``tokenizer`` and its encoder, in their dtypes.

    Args:
        released: what was read.
        tokenizer: has the expected names and shapes; it is not changed, and may be on the meta
            device.

    Raises:
        CheckpointError: lists every name that is missing, unexpected, of another shape, or not
            finite.
    """
    expected, problems = tokenizer.state_dict(), []
    if found := differences(expected, released.tokenizer):
        problems += [f"tokenizer: {line}" for line in found]
    encoder = None
    if released.encoder:
        try:
            encoder = _match_encoder(released.encoder, tokenizer.encoder)
        except CheckpointError as error:
            problems += [f"encoder: {line.strip()}" for line in str(error).splitlines()]
    if problems:
        raise CheckpointError(f"{released.source} does not fit:\n  " + "\n  ".join(problems))
    if broken := nonfinite_names(released.state):
        raise CheckpointError(f"{released.source} contains weights that are not finite: {broken}")
    return TokenizerWeights(_cast(released.tokenizer, expected), encoder)


def released_state(tokenizer: Tokenizer, with_encoder: bool = True) -> dict[str, Tensor]:
    """The state dict of a released tokenizer, the inverse of :func:`match_state_dict`.

    Raises:
        CheckpointError: released files have no names for this encoder.
    """
    state: dict[str, Tensor] = dict(tokenizer.state_dict())
    if with_encoder:
        released = tokenizer.encoder.to_released()
        state.update({ENCODER + name: tensor for name, tensor in released.items()})
    return state


def _match_encoder(released: Mapping[str, Tensor], encoder: Encoder) -> dict[str, Tensor]:
    found, expected = encoder.from_released(released), encoder.state_dict()
    if problems := differences(expected, found):
        raise CheckpointError("\n".join(problems))
    return _cast(found, expected)


def _cast(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(expected[name].dtype) for name, tensor in found.items()}
