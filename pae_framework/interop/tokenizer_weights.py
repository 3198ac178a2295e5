"""Released PAE tokenizers: read them, match them with a recipe, load, copy or write them.

A file holds one state dict: ``delta_encoder.``, ``latent_compressor.``, ``latent_decompressor.``
and ``decoder.`` with the names of our :class:`ComposedTokenizer`, and optionally ``encoder.`` with
the frozen encoder's names in its transformers class (PAE with transformers 4.57). A torch file has
it under ``model``; an ``ema`` next to it is ignored, as in PAE's own loader. Our own
``tokenizer.safetensors`` is such a file without encoder; a bottleneck with statistics adds
``bottleneck.`` to either. An encoder that was trained with the tokenizer is one of its parts and
has its own names under ``encoder.``.

Files of latent diffusion's KL autoencoders and of VA-VAE have the names of our ``ldm_cnn``, but for
the convolutions next to the latents, and further networks that only their training uses. GAE's have
those of our ``gae_vit``, but for the prefix ``encoder.``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pae_framework.build import build_bottleneck, meta_tokenizer
from pae_framework.contracts import Bottleneck, Encoder
from pae_framework.errors import CheckpointError, DataError, UsageError
from pae_framework.execution.context import StageContext
from pae_framework.interop.provenance import (
    INITIAL_WEIGHTS,
    WEIGHTS,
    describe_file,
    record_source,
    require_file,
    write_copy,
)
from pae_framework.recipe.models import Recipe, TokenizerSection
from pae_framework.registry import Registry
from pae_framework.system.files import write_json
from pae_framework.tensor_files import cast_like, differences, save_tensors
from pae_framework.tokenizer.model import ComposedTokenizer
from pae_framework.weight_files import read_weights

ENCODER = "encoder."
"""Prefix of the frozen encoder's names."""


_BESIDE = {
    **{"quant_conv.": ENCODER, "post_quant_conv.": "decoder."},
    **{"foundation_encoder.": ENCODER, "adapter.": ENCODER},
}
"""Prefixes, in latent diffusion's and GAE's files, of parts of our encoder and decoder."""
_OF_TRAINING = ("loss.", "foundation_model.", "linear_proj.", "model_ema.")
"""Prefixes of what latent diffusion's and VA-VAE's files hold for their training only."""
_GAE = ("foundation_encoder.", "adapter.", "decoder.")
"""Prefixes of GAE's networks; its loader ignores whatever else a file holds."""


@dataclass(frozen=True)
class TokenizerWeights:
    """Weights of a file, without wrapper prefixes.

    Args:
        source: the file, for messages.
        tokenizer: without the encoder.
        encoder: without the prefix ``encoder.``; empty if the file has no encoder.
        summary: one line: which weights of the file were chosen.
    """

    source: str
    tokenizer: Mapping[str, Tensor]
    encoder: Mapping[str, Tensor]
    summary: str = ""

    @property
    def state(self) -> dict[str, Tensor]:
        """The file's one state dict."""
        return {**self.tokenizer, **{ENCODER + name: x for name, x in self.encoder.items()}}


def load_tokenizer_weights(context: StageContext) -> None:
    """Stage ``tokenizer`` with ``tokenizer.weights``: check the file and write its weights.

    Writes ``tokenizer.safetensors``; ``encoder.safetensors`` if the file contains the encoder; and
    ``weights.json``, which describes the file. Reads no image.

    Raises:
        DataError: there is no such file.
        CheckpointError: it is damaged, or made for another recipe; lists what differs.
    """
    recipe = context.recipe
    assert recipe.tokenizer_section.weights is not None
    path = require_file(recipe.tokenizer_section.weights, "tokenizer.weights", folder=True)
    released = whole_tokenizer(read_released(path), recipe, context.registry)
    weights = match_recipe(released, recipe, context.registry)
    save_tensors(weights.tokenizer, context.directory / "tokenizer.safetensors")
    if weights.encoder:
        save_tensors(weights.encoder, context.directory / "encoder.safetensors")
    record_source(
        context,
        WEIGHTS,
        describe_file(path),
        layout=f"tokenizer {'with' if released.encoder else 'without'} encoder",
        tensors=len(released.tokenizer),
        encoder_tensors=len(released.encoder),
    )


def load_initial_weights(context: StageContext, tokenizer: ComposedTokenizer) -> None:
    """Load the weights that the training of ``tokenizer`` starts from; it may be on any device.

    They include the statistics of its bottleneck, which are not measured again. Writes
    ``initial_weights.json``, which describes the file.

    Raises:
        DataError: there is no such file.
        CheckpointError: it is damaged or made for another recipe, or contains other weights of a
            frozen encoder or other tensors of the bottleneck than the recipe's settings name.
    """
    section = context.recipe.tokenizer_section
    file = section.initial_weights
    assert file is not None
    path = require_file(file, "tokenizer.initial_weights", folder=True)
    weights = match_state_dict(read_released(path), tokenizer)
    own = tokenizer.encoder.state_dict()
    if differing := [
        name for name, x in weights.encoder.items() if not torch.equal(x, own[name].cpu())
    ]:
        raise CheckpointError(
            f"{path} contains other weights of the encoder than tokenizer.encoder loads, such as "
            f"{differing[0]}; set tokenizer.encoder.weights=<those of the file>"
        )
    tokenizer.load_state_dict(weights.tokenizer)
    _require_stated(weights, section, tokenizer.bottleneck)
    if context.world.is_main:
        write_json(context.directory / INITIAL_WEIGHTS, describe_file(path))


def validate_and_copy(
    file: Path, recipe: Recipe, registry: Registry, copy: Path
) -> tuple[str, bool]:
    """Check a released tokenizer against the recipe and write a copy that names the original.

    The copy is safetensors in the released layout.

    Returns:
        One line, which weights of the file were chosen; and whether they contain the encoder.

    Raises:
        CheckpointError: the file is damaged or made for another recipe; lists what differs.
        DataError: it contains no encoder, and the recipe's is not on this machine.
    """
    released = whole_tokenizer(read_released(file), recipe, registry)
    match_recipe(released, recipe, registry)
    missing = recipe.tokenizer_section.encoder.config.missing()
    if not released.encoder and missing is not None:
        raise DataError(
            f"{file} does not contain the encoder's weights: tokenizer.encoder: {missing}"
        )
    write_copy(released.state, file, copy)
    return released.summary, bool(released.encoder)


def read_released(path: Path) -> TokenizerWeights:
    """Read a released tokenizer, or one of ours: safetensors, or a torch file.

    Raises:
        CheckpointError: see :func:`~pae_framework.weight_files.read_weights`.
    """
    found = read_weights(path)
    tensors, summary = found.tensors, found.summary
    if any(name.startswith(tuple(_BESIDE)) for name in tensors):
        tensors = _without_training(tensors)
        if left := len(found.tensors) - len(tensors):
            summary += f"; {left} tensors of its training left out"
    encoder = {name: x for name, x in tensors.items() if name.startswith(ENCODER)}
    tokenizer = {name: x for name, x in tensors.items() if name not in encoder}
    encoder = {name.removeprefix(ENCODER): x for name, x in encoder.items()}
    return TokenizerWeights(str(path), tokenizer, encoder, summary)


def _without_training(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of latent diffusion's or GAE's file by our names, without those of its training."""
    of_gae = any(name.startswith(_GAE[0]) for name in tensors)
    return {
        next((part for beside, part in _BESIDE.items() if name.startswith(beside)), "") + name: x
        for name, x in tensors.items()
        if (name.startswith(_GAE) if of_gae else not name.startswith(_OF_TRAINING))
    }


def _as_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`_without_training`; other tokenizers have no such names."""
    inner = tuple(part + beside for beside, part in _BESIDE.items())
    return {
        name.partition(".")[2] if name.startswith(inner) else name: tensor
        for name, tensor in state.items()
    }


def whole_tokenizer(
    released: TokenizerWeights, recipe: Recipe, registry: Registry
) -> TokenizerWeights:
    """The weights of a file; if it holds a decoder alone, as RAE's, with those of the bottleneck.

    Raises:
        CheckpointError: it holds a decoder alone, and the bottleneck needs statistics.
        DataError: the file of the bottleneck's statistics is missing, damaged or does not fit.
    """
    section = recipe.tokenizer_section
    tokenizer = meta_tokenizer(section, recipe.data.image_size, registry)
    if released.encoder or not released.tokenizer.keys() & tokenizer.decoder.state_dict().keys():
        return released
    bottleneck = build_bottleneck(section, registry, tokenizer.encoder)
    if bottleneck.statistics_images:
        raise CheckpointError(
            f"{released.source} holds a decoder alone, and the bottleneck "
            f"{section.bottleneck.use!r} needs statistics; set "
            "tokenizer.bottleneck.statistics=<stat.pt>"
        )
    bottleneck.load_pretrained()
    parts = {"decoder": released.tokenizer, "bottleneck": bottleneck.state_dict()}
    tensors = {f"{part}.{name}": x for part, state in parts.items() for name, x in state.items()}
    return replace(released, tokenizer=tensors)


def match_recipe(
    released: TokenizerWeights, recipe: Recipe, registry: Registry
) -> TokenizerWeights:
    """The weights as state dicts of the recipe's tokenizer and encoder.

    Raises:
        CheckpointError: the file was made for another recipe; lists what differs.
        DataError: a file that the bottleneck's settings name is missing or damaged.
    """
    section = recipe.tokenizer_section
    encoder = section.encoder
    if released.encoder and encoder.train is not None and not section.train_encoder:
        raise CheckpointError(
            f"{released.source} contains an encoder, but the recipe trains its own "
            f"({encoder.use}: tokenizer.encoder.train)"
        )
    expected = meta_tokenizer(section, recipe.data.image_size, registry)
    weights = match_state_dict(released, expected)
    _require_stated(weights, section, build_bottleneck(section, registry, expected.encoder))
    if not released.encoder and getattr(encoder.config, "weights", None) == "none":
        raise CheckpointError(
            f"{released.source} does not contain the encoder's weights, and the recipe loads none; "
            "set tokenizer.encoder.weights=<the weights the tokenizer was trained with>"
        )
    return weights


def _require_stated(
    weights: TokenizerWeights, section: TokenizerSection, bottleneck: Bottleneck
) -> None:
    """Reject tensors of the bottleneck that differ from the files that its settings name."""
    if not (files := section.bottleneck.config.files()):
        return
    prefix = "bottleneck."
    found = {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.tokenizer.items()
        if name.startswith(prefix)
    }
    bottleneck.load_state_dict(found)
    bottleneck.load_pretrained()
    stated = bottleneck.state_dict()
    if differing := [name for name, x in found.items() if not torch.equal(x, stated[name].cpu())]:
        remedy = " ".join(f"tokenizer.{prefix}{key}=null" for key in files)
        raise CheckpointError(
            f"{weights.source} contains another `{prefix}{differing[0]}` than "
            f"{', '.join(map(str, files.values()))}; set {remedy} to use that of the former"
        )


def match_state_dict(released: TokenizerWeights, tokenizer: ComposedTokenizer) -> TokenizerWeights:
    """The weights as state dicts of ``tokenizer`` and its encoder, in their dtypes.

    Args:
        released: the file's weights.
        tokenizer: has the expected names and shapes. It is not changed and may be on the meta
            device.

    Raises:
        CheckpointError: lists every name that is missing, unexpected, of another shape, or not
            finite.
    """
    if tokenizer.trains_encoder:
        released = replace(released, tokenizer=released.state, encoder={})
    expected, encoder = tokenizer.state_dict(), {}
    problems = [f"tokenizer: {line}" for line in differences(expected, released.tokenizer)]
    if released.encoder:
        try:
            encoder = _match_encoder(released.encoder, tokenizer.encoder)
        except CheckpointError as error:
            problems += [f"encoder: {line.strip()}" for line in str(error).splitlines()]
    if problems:
        raise CheckpointError(f"{released.source} does not fit:\n  " + "\n  ".join(problems))
    cast = cast_like(expected, released.tokenizer, released.source)
    encoder = cast_like(tokenizer.encoder.state_dict(), encoder, released.source) if encoder else {}
    return replace(released, tokenizer=cast, encoder=encoder)


def released_state(tokenizer: ComposedTokenizer, with_encoder: bool = True) -> dict[str, Tensor]:
    """The state dict of a released tokenizer, the inverse of :func:`match_state_dict`.

    Raises:
        CheckpointError: released files have no names for this encoder.
        UsageError: it is to be left out although it was trained with the tokenizer.
    """
    state: dict[str, Tensor] = dict(tokenizer.state_dict())
    if tokenizer.trains_encoder and not with_encoder:
        raise UsageError(
            "the encoder was trained with the tokenizer, so the file needs it; remove --no-encoder"
        )
    if with_encoder and not tokenizer.trains_encoder:
        released = tokenizer.encoder.to_released()
        state.update({ENCODER + name: tensor for name, tensor in released.items()})
    return _as_released(state)


def _match_encoder(released: Mapping[str, Tensor], encoder: Encoder) -> dict[str, Tensor]:
    tensors, expected = encoder.from_released(released), encoder.state_dict()
    if problems := differences(expected, tensors):
        raise CheckpointError("\n".join(problems))
    return dict(tensors)
