"""Stage ``tokenizer``: train everything around the frozen encoder."""

from __future__ import annotations

from pae_framework.build import build_discriminator, build_objective, build_tokenizer
from pae_framework.data.images import ImageBatches
from pae_framework.data.stream import CountStream
from pae_framework.execution.artifacts import frozen_encoder, trained_refiner
from pae_framework.execution.context import StageContext, initial_weights
from pae_framework.interop.tokenizer_weights import load_tokenizer_weights
from pae_framework.tensor_files import save_tensors
from pae_framework.tokenizer.losses.adversarial import AdversarialTerm, DiscriminatorLoss, Schedule
from pae_framework.tokenizer.losses.objective import SIGNED
from pae_framework.training.loop import train
from pae_framework.training.task import TrainTask


def run(context: StageContext) -> None:
    """Train the tokenizer and write ``tokenizer.safetensors``; with ``tokenizer.weights``, load it.

    The parameters of regularizers are trained with the tokenizer and the discriminator against it.
    Checkpoints hold both; ``tokenizer.safetensors`` holds neither.
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
    adversarial = _adversarial_term(context, seed, len(source) / settings.batch_size, total)
    with initial_weights(seed, "regularizers"):
        objective = build_objective(tokenizer, section, context.registry, refiner, adversarial)

    discriminator = None
    if section.adversarial is not None and adversarial is not None:
        discriminator = TrainTask(
            DiscriminatorLoss(adversarial.discriminator, tokenizer),
            optimizer=section.adversarial.optimizer,
            first_step=adversarial.schedule.update_from,
        )
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


def _adversarial_term(
    context: StageContext, seed: int, steps_per_epoch: float, total: int
) -> AdversarialTerm | None:
    section = context.recipe.tokenizer.active_adversarial
    if section is None:
        return None
    schedule = Schedule.in_steps(
        section.update_from, section.start, section.warmup, per_epoch=steps_per_epoch, total=total
    )
    size = context.recipe.data.image_size
    with initial_weights(seed, "discriminator"):
        discriminator = build_discriminator(section.discriminator, size, context.registry)
        discriminator.load_pretrained()
    discriminator.to(context.device)
    return AdversarialTerm(discriminator, schedule, section.weight, section.adaptive)
