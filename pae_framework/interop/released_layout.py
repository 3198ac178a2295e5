"""Released PAE tokenizers: the layout of their files, read and written.

A file holds one state dict: ``delta_encoder.``, ``latent_compressor.``, ``latent_decompressor.``
and ``decoder.`` under the names of our :class:`Tokenizer`, and, unless it was saved without,
``encoder.`` with the frozen encoder under the names of its transformers class (PAE with
transformers 4.57). A torch file keeps it under ``model``; an ``ema`` beside it is left alone, as in
PAE's own loader. Wrapper prefixes (``module.``, ``_orig_mod.``) may stand before every name. Our
own ``tokenizer.safetensors`` is such a file without encoder; a bottleneck with statistics adds
``bottleneck.`` to either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pae_framework.contracts import Encoder
from pae_framework.errors import CheckpointError
from pae_framework.tensor_files import differences, not_finite, read_checkpoint
from pae_framework.tokenizer.model import Tokenizer

ENCODER = "encoder."
"""What stands before the names of the frozen encoder's weights."""


@dataclass(frozen=True)
class ReleasedTokenizer:
    """What a file holds: ``tokenizer`` without the encoder, and ``encoder`` by the names it has
    there less the leading ``encoder.``, empty where the file has none; ``source`` for messages."""

    source: str
    tokenizer: Mapping[str, Tensor]
    encoder: Mapping[str, Tensor]

    @property
    def state(self) -> dict[str, Tensor]:
        """Both as the one state dict they were, without wrapper prefixes."""
        return {**self.tokenizer, **{ENCODER + name: x for name, x in self.encoder.items()}}


@dataclass(frozen=True)
class TokenizerWeights:
    """State dicts of our modules: ``tokenizer``, and ``encoder`` where the file brought it."""

    tokenizer: dict[str, Tensor]
    encoder: dict[str, Tensor] | None


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


def fit(released: ReleasedTokenizer, tokenizer: Tokenizer) -> TokenizerWeights:
    """The weights as state dicts of ``tokenizer`` and its encoder, in their dtypes.

    Args:
        released: what was read.
        tokenizer: says which names and shapes there must be; it is not changed, and may be on the
            meta device.

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
            encoder = _fit_encoder(released.encoder, tokenizer.encoder)
        except CheckpointError as error:
            problems += [f"encoder: {line.strip()}" for line in str(error).splitlines()]
    if problems:
        raise CheckpointError(f"{released.source} does not fit:\n  " + "\n  ".join(problems))
    if broken := not_finite(released.state):
        raise CheckpointError(f"{released.source} holds weights that are not finite: {broken}")
    return TokenizerWeights(_cast(released.tokenizer, expected), encoder)


def released_state(tokenizer: Tokenizer, with_encoder: bool = True) -> dict[str, Tensor]:
    """The state dict of a released tokenizer, the inverse of :func:`fit`.

    Raises:
        CheckpointError: the encoder has no names in released files.
    """
    state: dict[str, Tensor] = dict(tokenizer.state_dict())
    if with_encoder:
        released = tokenizer.encoder.to_released()
        state.update({ENCODER + name: tensor for name, tensor in released.items()})
    return state


def _fit_encoder(released: Mapping[str, Tensor], encoder: Encoder) -> dict[str, Tensor]:
    found, expected = encoder.from_released(released), encoder.state_dict()
    if problems := differences(expected, found):
        raise CheckpointError("\n".join(problems))
    return _cast(found, expected)


def _cast(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(expected[name].dtype) for name, tensor in found.items()}
