"""Stage ``tokenizer``: train everything around the frozen encoder."""

from __future__ import annotations

from pae_framework.data.images import ImageBatches
from pae_framework.data.stream import CountStream
from pae_framework.execution.artifacts import frozen_encoder, trained_refiner
from pae_framework.execution.context import StageContext, initial_weights
from pae_framework.interop.tokenizer_weights import load_tokenizer_weights
from pae_framework.recipe.models import AdversarialSection
from pae_framework.tensor_files import save_tensors
from pae_framework.tokenizer.adversary import (
    Adversary,
    DiscriminatorObjective,
    Schedule,
    build_discriminator,
)
from pae_framework.tokenizer.model import Tokenizer, build_tokenizer
from pae_framework.tokenizer.objective import SIGNED, build_objective
from pae_framework.training.loop import train
from pae_framework.training.task import TrainTask


def run(context: StageContext) -> None:
    """Train the tokenizer with the recipe's reconstruction terms, regularizers and adversary.

    Parameters that regularizers bring are trained with it, and the discriminator against it, in the
    same checkpoints; ``tokenizer.safetensors`` is without both.
    """
    if context.recipe.tokenizer.weights is not None:
        load_tokenizer_weights(context)
        return
    recipe, section = context.recipe, context.recipe.tokenizer
    settings = section.train
    seed, source = context.seed(settings), context.train_source
    encoder = frozen_encoder(context)
    with initial_weights(seed, "tokenizer"):
        tokenizer = build_tokenizer(section, recipe.data.image_size, context.registry, encoder)
    tokenizer.to(context.device)

    stream = CountStream(len(source), settings.batch_size, seed)
    batches = ImageBatches(source, stream, recipe.data.flip, settings.workers)
    if count := min(tokenizer.bottleneck.statistics_images, len(source)):
        steps = max(1, count // settings.batch_size)
        tokenizer.measure(images.to(context.device) for images, _ in batches(0, steps))

    refiner = trained_refiner(context, encoder)
    total = settings.total_steps(len(source))
    context.print_length(settings, len(source))
    adversary = _adversary(context, seed, len(source) / settings.batch_size, total)
    with initial_weights(seed, "regularizers"):
        objective = build_objective(tokenizer, section, context.registry, refiner, adversary)

    discriminator = _discriminator_task(section.adversarial, adversary, tokenizer)
    task = TrainTask(
        objective,
        batches,
        discriminator=discriminator,
        begin_step=objective.begin_step,
        check=objective.check,
        signed=SIGNED,
    )
    train(task, settings, total, context.train_context(settings))
    save_tensors(tokenizer.state_dict(), context.directory / "tokenizer.safetensors")


def _adversary(
    context: StageContext, seed: int, steps_per_epoch: float, total: int
) -> Adversary | None:
    """The recipe's discriminator and when it counts; None where the term has weight 0."""
    recipe, section = context.recipe, context.recipe.tokenizer.adversarial
    if section is None or not section.weight:
        return None
    schedule = Schedule.of(section, steps_per_epoch, total)
    with initial_weights(seed, "discriminator"):
        discriminator = build_discriminator(section, recipe.data.image_size, context.registry)
    return Adversary(discriminator.to(context.device), schedule, section.weight, section.adaptive)


def _discriminator_task(
    section: AdversarialSection | None, adversary: Adversary | None, tokenizer: Tokenizer
) -> TrainTask | None:
    if section is None or adversary is None:
        return None
    module = DiscriminatorObjective(adversary.discriminator, tokenizer)
    first_step = adversary.schedule.update_from
    return TrainTask(module, optimizer=section.optimizer, first_step=first_step)
