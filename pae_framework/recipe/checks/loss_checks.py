"""Checks of the terms of the tokenizer's loss. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pae_framework.config import Duration, Length
from pae_framework.errors import Inconsistency
from pae_framework.recipe.components import RegularizerComponent
from pae_framework.recipe.models import Recipe, TokenizerSection
from pae_framework.recipe.nodes import KeyPath, dotted
from pae_framework.tokenizer.tokenizer_settings import FACTOR, TERM_COLUMNS
from pae_framework.training.train_settings import LOG_COLUMNS

_LABEL = re.compile(r"[a-z][a-z0-9_-]*")
_LONGEST_LABEL = 64

RESERVED = frozenset((*LOG_COLUMNS, *TERM_COLUMNS))
"""Other columns of the tokenizer's log, which a label of a regularizer must not equal."""

_REGULARIZERS: KeyPath = ("tokenizer", "regularizers")
_ENTERS = "the term enters the loss"


def check_losses(recipe: Recipe) -> Iterator[Inconsistency]:
    """Every term of a composed tokenizer's loss can be computed, and at least one is active."""
    yield from _check_labels(recipe)
    if recipe.composed is None:
        return
    yield from _check_regularizers(recipe)
    yield from _check_refinement(recipe)
    yield from _check_reconstruction(recipe)
    yield from _check_adversarial(recipe)
    yield from _check_any_term(recipe)


def _check_labels(recipe: Recipe) -> Iterator[Inconsistency]:
    composed = recipe.composed
    for section, components, reserved in (
        (_REGULARIZERS, {} if composed is None else composed.regularizers, RESERVED),
        (("evaluate",), recipe.evaluate, frozenset[str]()),
        (("trackers",), recipe.trackers, frozenset[str]()),
    ):
        for label, component in components.items():
            if (problem := label_problem(label, reserved)) is not None:
                name = component.use.rpartition("/")[2]
                hint = f"rename it, e.g. `my_{name}: {{use: {component.use}}}`"
                yield Inconsistency((*section, label), problem, hint)


def label_problem(label: str, reserved: frozenset[str] = frozenset()) -> str | None:
    """Explain why ``label`` cannot name a log column or folder; None if it can."""
    if not _LABEL.fullmatch(label):
        return "a label must be a lower-case letter followed by letters, digits, '_' or '-'"
    if len(label) > _LONGEST_LABEL:
        return f"a label has at most {_LONGEST_LABEL} characters, found {len(label)}"
    if label in reserved or (reserved and label.endswith(FACTOR)):
        return f"{label!r} is reserved for another column of the log"
    return None


def _check_regularizers(recipe: Recipe) -> Iterator[Inconsistency]:
    tokenizer, bottleneck = recipe.tokenizer_section, recipe.tokenizer_section.bottleneck
    reconstructs = bool(tokenizer.reconstruction.active_terms)
    for label, component in tokenizer.active_regularizers.items():
        path, config = (*_REGULARIZERS, label), component.config
        refined = tokenizer.target == "refined" and not tokenizer.train_encoder
        if config.needs_target and refined and tokenizer.refinement is None:
            message = "needs the refined prior, but the recipe has no tokenizer.refinement"
            hint = "add `tokenizer.refinement` or set tokenizer.target=raw"
            yield Inconsistency(path, message, hint)
        if config.needs_moments and not bottleneck.config.has_moments:
            message = f"needs latents with a mean and a variance, but {bottleneck.use!r} has none"
            yield Inconsistency(path, message, "set tokenizer.bottleneck.use=gaussian")
        if config.needs_distance and not reconstructs:
            message = "needs a reconstruction term, but all have weight 0"
            hint = f"set tokenizer.reconstruction.l1=1 or tokenizer.regularizers.{label}.weight=0"
            yield Inconsistency(path, message, hint)
        measured = bottleneck.config.projects or _encoder_ends_in_latents(tokenizer)
        if config.adapts_weight and tokenizer.weights is None and not (measured and reconstructs):
            absent = "a reconstruction term, but all have weight 0"
            if not measured:
                absent = (
                    f"a projector, which {bottleneck.use!r} lacks, or tokenizer.train_encoder=true "
                    "with an encoder that has a last layer, such as ldm_cnn, and no modulator"
                )
            remedy = "adaptive=false" if "adaptive" in type(config).model_fields else "weight=0"
            hint = f"set tokenizer.regularizers.{label}.{remedy}"
            yield Inconsistency(path, f"its adaptive weight needs {absent}", hint)
        yield from _check_times(recipe, path, component)


def _check_times(
    recipe: Recipe, path: KeyPath, component: RegularizerComponent
) -> Iterator[Inconsistency]:
    """The training reaches the term's start and the end of its weight's schedule."""
    start, schedule = component.start, component.schedule
    if start and (found := list(_check_point(recipe, (*path, "start"), start, _ENTERS))):
        yield from found
    elif schedule and _ends_before(recipe, _sum(recipe, start, schedule)):
        key = dotted((*path, "weight", "epochs" if schedule.steps is None else "steps"))
        end = _yaml(_end(recipe))
        message = f"the training ends at {end}, before the weight is {schedule.to:g}"
        hint = f"set fewer {key} or a longer tokenizer.train"
        yield Inconsistency((*path, "weight"), message, hint)


def _sum(recipe: Recipe, start: Length | None, after: Duration) -> Length | None:
    """The point of the training this long after ``start``; None if it is unknown."""
    parts = [part for part in (start, after) if part is not None]
    if all(part.epochs is not None for part in parts):
        return Length(epochs=sum(part.epochs or 0 for part in parts))
    images = recipe.data.train.config.image_count()
    if images is None and any(part.steps is None for part in parts):
        return None
    per_epoch = (images or 0) / recipe.tokenizer_section.train.batch_size
    return Length(steps=sum(part.in_steps(per_epoch) for part in parts))


def _encoder_ends_in_latents(tokenizer: TokenizerSection) -> bool:
    """Whether the last layer of a trained encoder is the last one before the latents."""
    trained = tokenizer.train_encoder and tokenizer.encoder.config.has_last_layer
    return trained and tokenizer.modulator.config.keeps_tokens


def _check_refinement(recipe: Recipe) -> Iterator[Inconsistency]:
    bottleneck = recipe.tokenizer_section.bottleneck
    if recipe.tokenizer_section.refinement is not None and not bottleneck.config.projects:
        message = f"needs a projector, but the bottleneck {bottleneck.use!r} has none"
        hint = "set tokenizer.refinement=null"
        yield Inconsistency(("tokenizer", "refinement"), message, hint)


def _check_reconstruction(recipe: Recipe) -> Iterator[Inconsistency]:
    size = recipe.data.image_size
    for name, term in recipe.tokenizer_section.reconstruction.active_terms.items():
        if size < term.smallest_image:
            path = ("tokenizer", "reconstruction", name)
            message = f"needs {term.smallest_image} px or more, but data.image_size is {size}"
            yield Inconsistency(path, message, f"set {'.'.join(path)}.weight=0")
    yield from _check_compared_layers(recipe)


def _check_compared_layers(recipe: Recipe) -> Iterator[Inconsistency]:
    """The encoder has the compared layers, even at weight 0: evaluators use the distance, too."""
    encoder = recipe.tokenizer_section.encoder
    layers = recipe.tokenizer_section.reconstruction.perceptual.layers
    count = encoder.config.feature_maps()
    if layers is None or count is None or max(layers) < count:
        return
    path = ("tokenizer", "reconstruction", "perceptual", "layers")
    message = f"layer {max(layers)} is beyond the layers of {encoder.use!r}, 0 to {count - 1}"
    kept = [layer for layer in layers if layer < count] or [count - 1]
    yield Inconsistency(path, message, f"set {dotted(path)}={kept}")


def _check_adversarial(recipe: Recipe) -> Iterator[Inconsistency]:
    section = recipe.tokenizer_section.active_adversarial
    if section is None:
        return
    path = ("tokenizer", "adversarial")
    try:
        section.discriminator.config.check_image_size(recipe.data.image_size)
    except ValueError as error:
        yield Inconsistency((*path, "discriminator"), str(error))
    if section.start.before(section.update_from):
        message = "starts before update_from, so the loss would use an untrained discriminator"
        hint = f"set tokenizer.adversarial.start={_yaml(section.update_from)}"
        yield Inconsistency((*path, "start"), message, hint)
    for key, event in (
        ("start", _ENTERS),
        ("update_from", "the discriminator is first updated"),
    ):
        yield from _check_point(recipe, (*path, key), getattr(section, key), event)
    if section.adaptive and not recipe.tokenizer_section.reconstruction.active_terms:
        message = "an adaptive weight needs a reconstruction term, but all have weight 0"
        yield Inconsistency(
            (*path, "adaptive"), message, "set tokenizer.adversarial.adaptive=false"
        )


def _check_point(
    recipe: Recipe, path: KeyPath, point: Length, event: str
) -> Iterator[Inconsistency]:
    """The training of the tokenizer, if there is one, reaches a point of it."""
    if _ends_before(recipe, point, or_at=True):
        message = f"the training ends at {_yaml(_end(recipe))}, before {event}"
        hint = f"set an earlier {dotted(path)} or a longer tokenizer.train"
        yield Inconsistency(path, message, hint)


def _ends_before(recipe: Recipe, point: Length | None, or_at: bool = False) -> bool:
    """Whether the training, if there is one, ends before a point, or at it; False if unknown."""
    train, images = recipe.tokenizer_section.train, recipe.data.train.config.image_count()
    end = _end(recipe)
    if point is None or recipe.tokenizer_section.weights is not None:
        return False
    if images is None:
        return end.before(point) or (or_at and point.reaches(end))
    per_epoch = images / train.batch_size
    return point.in_steps(per_epoch) + or_at > end.in_steps(per_epoch)


def _end(recipe: Recipe) -> Length:
    train = recipe.tokenizer_section.train
    return Length(steps=train.steps, epochs=train.epochs)


def _yaml(length: Length) -> str:
    if length.steps is not None:
        return f"{{steps: {length.steps}}}"
    return f"{{epochs: {length.epochs:g}}}"


def _check_any_term(recipe: Recipe) -> Iterator[Inconsistency]:
    tokenizer = recipe.tokenizer_section
    terms = tokenizer.reconstruction.active_terms or tokenizer.active_regularizers
    if not tokenizer.reconstruction.active_terms:
        yield from _check_every_step(recipe)
    if terms or tokenizer.active_adversarial:
        return
    message = "every term of the tokenizer's loss has weight 0"
    hint = "set tokenizer.reconstruction.l1=1"
    yield Inconsistency(("tokenizer", "reconstruction"), message, hint)


def _check_every_step(recipe: Recipe) -> Iterator[Inconsistency]:
    """A training without reconstruction terms has another term that is active in every step."""
    terms = recipe.tokenizer_section.active_regularizers
    for term in terms.values():
        if term.start is None and (term.schedule is None or term.schedule.first * term.schedule.to):
            return
    if terms and recipe.tokenizer_section.weights is None:
        label, term = next(iter(terms.items()))
        path = (*_REGULARIZERS, label)
        message = "no term of the loss is active in every step"
        other = f"{dotted(path)}.start=null"
        if not term.start:
            other = f"let {dotted(path)}.weight never be 0"
        yield Inconsistency(path, message, f"set tokenizer.reconstruction.l1=1 or {other}")
