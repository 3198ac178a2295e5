"""Checks of an encoder that is trained with the tokenizer. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from pae_framework.errors import Inconsistency
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath, dotted

_FROZEN = "needs a frozen encoder, but tokenizer.train_encoder is true"
_COPY = "tokenizer.train_encoder=false and tokenizer.modulator.use=finetune"
"""Trains a copy of the encoder; features and targets come from the frozen one."""


def check_trained_encoder(recipe: Recipe) -> Iterator[Inconsistency]:
    """Nothing needs frozen features, or a cache of them, from an encoder that is trained."""
    tokenizer = recipe.tokenizer
    if not tokenizer.train_encoder:
        return
    for label, term in tokenizer.active_regularizers.items():
        if term.config.needs_target or term.config.needs_features:
            path: KeyPath = ("tokenizer", "regularizers", label)
            yield Inconsistency(path, _FROZEN, f"set {dotted(path)}.weight=0, or {_COPY}")
    if tokenizer.refinement is not None:
        hint = f"set tokenizer.refinement=null, or {_COPY}"
        yield Inconsistency(("tokenizer", "refinement"), _FROZEN, hint)
    if tokenizer.reconstruction.perceptual.weight:
        path = ("tokenizer", "reconstruction", "perceptual")
        yield Inconsistency(path, _FROZEN, f"set {dotted(path)}.weight=0")
    if tokenizer.cache_features:
        path = ("tokenizer", "cache_features")
        yield Inconsistency(path, _FROZEN, "set tokenizer.cache_features=false")
    if tokenizer.modulator.config.replaces_tokens:
        path = ("tokenizer", "modulator")
        message = f"{tokenizer.modulator.use!r} ignores the tokens of the encoder that is trained"
        hint = "set tokenizer.train_encoder=false or tokenizer.modulator.use=none"
        yield Inconsistency(path, message, hint)
