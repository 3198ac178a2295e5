"""Checks of an encoder that is trained with the tokenizer. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from pae_framework.errors import Inconsistency
from pae_framework.recipe.components import TeacherComponent
from pae_framework.recipe.models import Recipe, TokenizerSection
from pae_framework.recipe.nodes import KeyPath, dotted

_FROZEN = "needs a frozen encoder, but tokenizer.train_encoder is true"
_COPY = (
    "or train a copy of the encoder instead: tokenizer.train_encoder=false and "
    "tokenizer.modulator.use=finetune"
)
"""Trains a copy of the encoder; features and targets come from the frozen one."""


def check_encoder_training(recipe: Recipe) -> Iterator[Inconsistency]:
    """An encoder is trained with the tokenizer if it must be, and nothing needs it frozen then."""
    tokenizer, extractor = recipe.composed, recipe.extractor
    if extractor is not None and extractor.config.trained_with_tokenizer:
        message = f"{extractor.use!r} is only trained as the tokenizer's encoder"
        yield Inconsistency(("extractor",), message, "set extractor=small_cnn")
    if tokenizer is None:
        return
    if tokenizer.teacher is not None:
        yield from _check_teacher(tokenizer, tokenizer.teacher, recipe.data.image_size)
    if tokenizer.train_encoder:
        yield from _check_trained(tokenizer, recipe.data.image_size)
    elif tokenizer.encoder.config.trained_with_tokenizer:
        message = f"{tokenizer.encoder.use!r} is only trained with the tokenizer"
        yield Inconsistency(("tokenizer", "encoder"), message, "set tokenizer.train_encoder=true")


def _check_trained(tokenizer: TokenizerSection, image_size: int) -> Iterator[Inconsistency]:
    if tokenizer.encoder.config.frozen_parameters(image_size):
        path: KeyPath = ("tokenizer", "encoder")
        message = f"{tokenizer.encoder.use!r} keeps a part of it frozen; it cannot be trained whole"
        yield Inconsistency(path, message, "set tokenizer.train_encoder=false")
    for label, term in tokenizer.active_regularizers.items():
        taught = tokenizer.teacher is not None
        refined = term.config.needs_target and tokenizer.target == "refined"
        raw = term.config.needs_features or term.config.needs_target
        if refined or (raw and not taught):
            path = ("tokenizer", "regularizers", label)
            yield Inconsistency(path, _FROZEN, f"set {dotted(path)}.weight=0; {_COPY}")
    if tokenizer.refinement is not None:
        hint = f"set tokenizer.refinement=null; {_COPY}"
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
        hint = "set tokenizer.modulator.use=none or tokenizer.train_encoder=false"
        yield Inconsistency(path, message, hint)
    if tokenizer.bottleneck.config.standardizes and tokenizer.weights is None:
        path = ("tokenizer", "bottleneck")
        message = (
            f"{tokenizer.bottleneck.use!r} standardizes by statistics from before the training, "
            "but tokenizer.train_encoder changes the tokens"
        )
        hint = "set tokenizer.train_encoder=false or tokenizer.bottleneck.use=sphere"
        yield Inconsistency(path, message, hint)


def _check_teacher(
    tokenizer: TokenizerSection, teacher: TeacherComponent, size: int
) -> Iterator[Inconsistency]:
    """It is trained by itself, has the encoder's token grid, and a regularizer uses it."""
    path: KeyPath = ("tokenizer", "teacher")
    if teacher.config.trained_with_tokenizer:
        message = f"{teacher.use!r} is only trained as the tokenizer's encoder"
        yield Inconsistency(path, message, "set tokenizer.teacher.use=dinov2")
        return
    if teacher.config.trainable and teacher.preprocessing == "signed":
        message = f"{teacher.use!r} is trained with its own preprocessing"
        hint = "set tokenizer.teacher.preprocessing=own"
        yield Inconsistency((*path, "preprocessing"), message, hint)
    if not tokenizer.needs_features:
        message = "no active regularizer uses the features of a teacher"
        yield Inconsistency(path, message, "set tokenizer.teacher=null")
    try:
        grid, expected = (x.config.token_grid(size) for x in (teacher, tokenizer.encoder))
    except ValueError as error:
        yield Inconsistency(path, str(error))
        return
    if grid != expected:
        message = f"has {grid} x {grid} tokens, but the encoder has {expected} x {expected}"
        yield Inconsistency(path, message, f"choose a teacher with {expected} x {expected} tokens")
