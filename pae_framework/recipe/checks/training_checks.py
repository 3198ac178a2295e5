"""Checks of ``train`` settings, kept steps and class counts. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from pae_framework.errors import Inconsistency
from pae_framework.recipe.derived import known_steps
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath, dotted
from pae_framework.recipe.stage_table import STAGES
from pae_framework.training.train_settings import OptimizerSettings, TrainSettings

_DISCRIMINATOR: KeyPath = ("tokenizer", "adversarial", "optimizer")


def check_training(recipe: Recipe) -> Iterator[Inconsistency]:
    """Trainable encoders have a ``train`` map, and kept steps are within the training."""
    yield from _check_encoders(recipe)
    yield from _check_keep_steps(recipe)
    yield from _check_warmups(recipe)
    yield from _check_statistics(recipe)
    yield from _check_parallel(recipe)
    yield from _check_classes(recipe)


def _check_encoders(recipe: Recipe) -> Iterator[Inconsistency]:
    encoders = {
        ("tokenizer", "encoder"): None if recipe.composed is None else recipe.composed.encoder,
        ("extractor",): recipe.extractor,
    }
    for path, encoder in encoders.items():
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
    """Kept steps are not beyond the last step, even of a ``train`` map that is not in use.

    The training loop checks this if the length is in epochs and the number of images is unknown.
    """
    for stage in STAGES.values():
        train = stage.stated_train(recipe)
        if train is None or (last := known_steps(train, recipe)) is None:
            continue
        beyond = [step for step in train.keep_steps if step > last]
        if beyond:
            kept = [step for step in train.keep_steps if step <= last]
            message = f"{', '.join(map(str, beyond))} is beyond the last step ({last})"
            keep_steps = (*(stage.train_path or ()), "keep_steps")
            yield Inconsistency(keep_steps, message, f"set {dotted(keep_steps)}={kept}")


def _check_warmups(recipe: Recipe) -> Iterator[Inconsistency]:
    """Each learning rate reaches its peak before the end of the training."""
    optimizers: list[tuple[KeyPath, OptimizerSettings, TrainSettings]] = []
    for stage in STAGES.values():
        if (train := stage.stated_train(recipe)) is not None:
            optimizers.append((stage.train_path or (), train, train))
    composed = recipe.composed
    if composed is not None and (adversarial := composed.active_adversarial) is not None:
        optimizers.append((_DISCRIMINATOR, adversarial.optimizer, composed.train))
    for path, optimizer, train in optimizers:
        last, warmup = known_steps(train, recipe), optimizer.warmup_steps
        if last is not None and warmup > last:
            key = (*path, "warmup_steps")
            message = f"the warm-up of {warmup} steps is longer than the training ({last})"
            yield Inconsistency(key, message, f"set {dotted(key)}={last // 10}")


def _check_statistics(recipe: Recipe) -> Iterator[Inconsistency]:
    generator = recipe.generator
    if recipe.latents.statistics is not None and (generator is None or generator.weights is None):
        message = "needs a pretrained generator, but generator.weights is not set"
        hint = "set generator.weights=<file> or latents.statistics=null"
        yield Inconsistency(("latents", "statistics"), message, hint)


def _check_parallel(recipe: Recipe) -> Iterator[Inconsistency]:
    if recipe.composed is not None and recipe.composed.train.parallel == "fsdp":
        path = ("tokenizer", "train", "parallel")
        message = (
            "adaptive weights, regularizers and the discriminator use the tokenizer's weights "
            "outside of its forward pass, which sharded weights (fsdp) do not allow"
        )
        yield Inconsistency(path, message, f"set {dotted(path)}=ddp")


def _check_classes(recipe: Recipe) -> Iterator[Inconsistency]:
    if recipe.generator is None:
        return
    stated = recipe.generator.config.stated_classes()
    counted = recipe.data.train.config.class_count()
    if None not in (stated, counted) and stated != counted:
        message = f"expects {stated} classes, but data.train has {counted}"
        hint = f"choose a generator for {counted} classes"
        if "classes" in type(recipe.generator.config).model_fields:
            hint = f"set generator.classes={counted}"
        yield Inconsistency(("generator",), message, hint)
