"""Checks of ``train`` settings, kept steps and class counts. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pae_framework.config import Length
from pae_framework.errors import Inconsistency
from pae_framework.recipe.derived import known_steps
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath, dotted
from pae_framework.recipe.stage_table import EXPORTED_AVERAGES, STAGES
from pae_framework.training.train_settings import OptimizerSettings, TrainSettings

_DISCRIMINATOR: KeyPath = ("tokenizer", "adversarial", "optimizer")


def check_training(recipe: Recipe) -> Iterator[Inconsistency]:
    """Trainable encoders have a ``train`` map, and kept steps are within the training."""
    yield from _check_encoders(recipe)
    yield from _check_initial_weights(recipe)
    yield from _check_keep_steps(recipe)
    yield from _check_snapshots(recipe)
    yield from _check_warmups(recipe)
    yield from _check_decays(recipe)
    yield from _check_decay_starts(recipe)
    yield from _check_statistics(recipe)
    yield from _check_views(recipe)
    yield from _check_parallel(recipe)
    yield from _check_classes(recipe)


def _check_encoders(recipe: Recipe) -> Iterator[Inconsistency]:
    composed = recipe.composed
    own = None if composed is None else composed.encoder
    with_tokenizer = composed is not None and composed.train_encoder
    encoders = {
        ("tokenizer", "encoder"): own,
        ("tokenizer", "teacher"): None if composed is None else composed.teacher,
        ("extractor",): recipe.extractor,
    }
    for path, encoder in encoders.items():
        if encoder is None or encoder.config.trainable == (encoder.train is not None):
            continue
        if encoder is own and encoder.config.trainable and with_tokenizer:
            continue
        train = dotted((*path, "train"))
        if encoder.config.trainable:
            message = f"{encoder.use!r} is trained in the run and needs a `train` map"
            yield Inconsistency(path, message, f"set {train}={{steps: <steps>}}")
        else:
            message = f"{encoder.use!r} is not trained in the run"
            yield Inconsistency((*path, "train"), message, f"set {train}=null")


def _check_initial_weights(recipe: Recipe) -> Iterator[Inconsistency]:
    section = recipe.composed
    if section is not None and section.weights is not None and section.initial_weights is not None:
        message = "has no effect, because tokenizer.weights is loaded and not trained"
        hint = "set tokenizer.weights=null or tokenizer.initial_weights=null"
        yield Inconsistency(("tokenizer", "initial_weights"), message, hint)


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


def _check_snapshots(recipe: Recipe) -> Iterator[Inconsistency]:
    """Snapshots of averages are of weights that can be exported, and within the training."""
    for stage in STAGES.values():
        train = stage.stated_train(recipe)
        if train is None or train.ema_snapshots is None:
            continue
        key = (*(stage.train_path or ()), "ema_snapshots")
        every, last = train.ema_snapshots.every, known_steps(train, recipe)
        if stage.name not in EXPORTED_AVERAGES:
            message = f"`pae export ema` reads only those of {' and '.join(EXPORTED_AVERAGES)}"
            yield Inconsistency(key, message, f"set {dotted(key)}=null")
        elif last is not None and every > last:
            key = (*key, "every")
            message = f"{every} is beyond the last step ({last})"
            yield Inconsistency(key, message, f"set {dotted(key)}={max(1, last // 50)}")


@dataclass(frozen=True)
class _Optimizer:
    """An optimizer of a training; ``first``: when it takes its first step."""

    path: KeyPath
    settings: OptimizerSettings
    train: TrainSettings
    first: Length | None = None

    def steps(self, recipe: Recipe) -> int | None:
        """Its own steps, which its schedule counts; None if the recipe does not determine them."""
        last, per_epoch = known_steps(self.train, recipe), _steps_per_epoch(self.train, recipe)
        if last is None or self.first is None:
            return last
        if self.first.steps is None and per_epoch is None:
            return None
        return last - self.first.in_steps(per_epoch or 1)

    @property
    def counting(self) -> str:
        """Says from where its steps count, if not from the first of the training."""
        later = self.first is not None and (self.first.steps or self.first.epochs)
        return ", counting its own steps from update_from" if later else ""


def _steps_per_epoch(train: TrainSettings, recipe: Recipe) -> float | None:
    images = recipe.data.train.config.image_count()
    return None if images is None else images / train.batch_size


def _optimizers(recipe: Recipe) -> Iterator[_Optimizer]:
    for stage in STAGES.values():
        if (train := stage.stated_train(recipe)) is not None:
            yield _Optimizer(stage.train_path or (), train, train)
    composed = recipe.composed
    if composed is not None and (section := composed.active_adversarial) is not None:
        yield _Optimizer(_DISCRIMINATOR, section.optimizer, composed.train, section.update_from)


def _check_decays(recipe: Recipe) -> Iterator[Inconsistency]:
    """Warm-up, start and end of a decay are in order; their units are compared by the images."""
    for optimizer in _optimizers(recipe):
        path, settings = optimizer.path, optimizer.settings
        per_epoch = _steps_per_epoch(optimizer.train, recipe)
        start, end, warmup = settings.decay_from, settings.decay_to, settings.warmup_steps
        if per_epoch is None or (start is None and end is None):
            continue
        first = warmup if start is None else start.in_steps(per_epoch)
        if first < warmup:
            message = f"{start} is step {first}, before the end of the warm-up (step {warmup})"
            key = (*path, "decay_from")
            yield Inconsistency(key, message, f"set {dotted(key)}={{steps: {warmup}}}")
        elif end is not None and (last := end.in_steps(per_epoch)) <= first:
            message = f"{end} is step {last}, not after the start of the decay (step {first})"
            key = (*path, "decay_to")
            yield Inconsistency(key, message, f"set {dotted(key)}={{steps: {first + 1}}} or later")


def _check_decay_starts(recipe: Recipe) -> Iterator[Inconsistency]:
    """A decay up to the last step starts before it: else the learning rate never falls.

    With ``decay_to``, a training may end before the decay and be continued.
    """
    for optimizer in _optimizers(recipe):
        start = optimizer.settings.decay_from
        if start is None or optimizer.settings.decay_to is not None:
            continue
        train, total = optimizer.train, optimizer.steps(recipe)
        per_epoch = _steps_per_epoch(train, recipe)
        if total is None or (start.steps is None and per_epoch is None):
            late = start.reaches(Length(steps=train.steps, epochs=train.epochs))
            end = "the end of the training"
        else:
            late = start.in_steps(per_epoch or 1) >= total - 1 >= 0
            end = f"the last one ({total - 1})"
        if late:
            key = (*optimizer.path, "decay_from")
            where = f"{start} is not before {end}{optimizer.counting}"
            hint = f"set an earlier {dotted(key)}, or a longer training"
            yield Inconsistency(key, f"{where}, so the learning rate never falls", hint)


def _check_warmups(recipe: Recipe) -> Iterator[Inconsistency]:
    """Each learning rate reaches its peak before the end of the training."""
    for optimizer in _optimizers(recipe):
        last, warmup = optimizer.steps(recipe), optimizer.settings.warmup_steps
        if last is not None and warmup > last > 0:
            key = (*optimizer.path, "warmup_steps")
            message = f"the warm-up of {warmup} steps is longer than the training ({last})"
            message += optimizer.counting
            yield Inconsistency(key, message, f"set {dotted(key)}={last // 10}")


def _check_statistics(recipe: Recipe) -> Iterator[Inconsistency]:
    generator, latents = recipe.generator, recipe.latents
    trains = generator is None or generator.weights is None
    if latents.statistics is not None and latents.stored and trains:
        message = "needs a pretrained generator, but generator.weights is not set"
        hint = "set generator.weights=<file>, latents.stored=false or latents.statistics=null"
        yield Inconsistency(("latents", "statistics"), message, hint)


def _check_views(recipe: Recipe) -> Iterator[Inconsistency]:
    """Crops are smaller than the image, and no training asks for views that are not stored."""
    size = recipe.data.image_size
    for stage in STAGES.values():
        train, path = stage.stated_train(recipe), stage.train_path or ()
        if train is None:
            continue
        if train.crop_from is not None and train.crop_from <= size:
            key = (*path, "crop_from")
            message = f"{train.crop_from} px are not more than data.image_size ({size} px)"
            yield Inconsistency(key, message, f"set {dotted(key)}={size * 3 // 2}")
        if (stored := _stored_views(recipe, stage.name)) is None:
            continue
        what, without = stored
        if train.crop_from is not None:
            key = (*path, "crop_from")
            message = f"{what} are of whole images"
            yield Inconsistency(key, message, f"set {dotted(key)}=null or {without}")
        if train.flip and not recipe.data.flip:
            key = (*path, "flip")
            message = f"{what} are not of mirrored images"
            yield Inconsistency(key, message, f"set data.flip=true or {without}")


def _stored_views(recipe: Recipe, stage: str) -> tuple[str, str] | None:
    """What a training reads in place of images, and the setting without it; None: images."""
    if stage == "generator" and recipe.latents.stored:
        return "stored latents", "latents.stored=false"
    if stage in ("refine", "tokenizer") and recipe.tokenizer_section.cache_features:
        return "cached features", "tokenizer.cache_features=false"
    return None


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
