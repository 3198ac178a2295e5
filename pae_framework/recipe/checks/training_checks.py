"""Checks of what is trained, for how long and on which labels. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from pae_framework.recipe.checks.inconsistency import Inconsistency
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import dotted
from pae_framework.recipe.stage_table import STAGES, trainings


def check_training(recipe: Recipe) -> Iterator[Inconsistency]:
    """What needs training has a ``train`` map, and the steps it names are reached."""
    yield from _check_encoders(recipe)
    yield from _check_keep_steps(recipe)
    yield from _check_statistics(recipe)
    yield from _check_classes(recipe)


def _check_encoders(recipe: Recipe) -> Iterator[Inconsistency]:
    extractor = recipe.extractor
    if extractor is not None and not extractor.config.trainable:
        message = f"{extractor.use!r} cannot be trained in the run, as an extractor must be"
        hint = "set extractor={use: small_cnn, train: {steps: <steps>}}"
        yield Inconsistency(("extractor",), message, hint)
        extractor = None
    encoders = [(("tokenizer", "encoder"), recipe.tokenizer.encoder), (("extractor",), extractor)]
    for path, encoder in encoders:
        if encoder is None or encoder.config.trainable == (encoder.train is not None):
            continue
        train = dotted((*path, "train"))
        if encoder.config.trainable:
            message = f"{encoder.use!r} is trained in the run and needs a `train` map"
            yield Inconsistency(path, message, f"set {train}={{steps: <steps>}}")
        else:
            message = f"{encoder.use!r} is not trained in the run"
            yield Inconsistency((*path, "train"), message, f"set {train}=null")


def _check_keep_steps(recipe: Recipe) -> Iterator[Inconsistency]:
    """Weights can only be kept at steps that the training reaches.

    The steps of a training whose length is in epochs are not known here; its loop checks them.
    """
    for stage, train in trainings(recipe).items():
        if train.steps is None:
            continue
        beyond = [step for step in train.keep_steps if step > train.steps]
        if beyond:
            kept = [step for step in train.keep_steps if step <= train.steps]
            message = f"{', '.join(map(str, beyond))} is beyond the last step ({train.steps})"
            keep_steps = (*(STAGES[stage].train_path or ()), "keep_steps")
            yield Inconsistency(keep_steps, message, f"set {dotted(keep_steps)}={kept}")


def _check_statistics(recipe: Recipe) -> Iterator[Inconsistency]:
    generator = recipe.generator
    if recipe.latents.statistics is not None and (generator is None or generator.weights is None):
        message = "is only for a generator trained elsewhere, but generator.weights is not set"
        hint = "set generator.weights=<file> or latents.statistics=null"
        yield Inconsistency(("latents", "statistics"), message, hint)


def _check_classes(recipe: Recipe) -> Iterator[Inconsistency]:
    if recipe.generator is None:
        return
    stated = recipe.generator.config.stated_classes()
    counted = recipe.data.train.config.class_count()
    if None not in (stated, counted) and stated != counted:
        message = f"expects {stated} classes, but data.train has {counted}"
        yield Inconsistency(("generator",), message, f"set generator.classes={counted}")
