"""Stage ``tokenizer``: train everything around the encoder, and the encoder if it is not frozen.

A tokenizer that comes trained is loaded.
"""

from __future__ import annotations

from pae_framework.build import (
    build_discriminator,
    build_objective,
    build_teacher,
    build_tokenizer,
)
from pae_framework.execution.artifacts import frozen_encoder, pretrained_tokenizer, trained_refiner
from pae_framework.execution.cached_features import cached_features
from pae_framework.execution.context import StageContext, initial_weights
from pae_framework.execution.probe import probe_discriminator, probe_tokenizer
from pae_framework.execution.training import image_batches, measure_on_main, save_weights
from pae_framework.interop.tokenizer_weights import load_initial_weights, load_tokenizer_weights
from pae_framework.recipe.models import TokenizerSection
from pae_framework.tokenizer.frozen_types import cast_frozen_networks
from pae_framework.tokenizer.losses.adversarial import AdversarialTerm, DiscriminatorLoss, Schedule
from pae_framework.tokenizer.losses.objective import SIGNED
from pae_framework.tokenizer.model import ComposedTokenizer
from pae_framework.tokenizer.step_tokens import StepTokens
from pae_framework.training.loop import train
from pae_framework.training.task import TrainTask


def run(context: StageContext) -> None:
    """Train the tokenizer and write ``tokenizer.safetensors``.

    With ``tokenizer.weights``, or if the tokenizer is one component, the weights are only loaded.

    The discriminator and the parameters of regularizers are trained with the tokenizer. They are in
    the checkpoints, but not in ``tokenizer.safetensors``.
    """
    if context.recipe.composed is None:
        save_weights(context, pretrained_tokenizer(context), "tokenizer.safetensors")
        return
    section, registry = context.recipe.tokenizer_section, context.registry
    if section.weights is not None:
        if context.world.is_main:
            load_tokenizer_weights(context)
        return
    settings = section.train
    seed, source = context.seed(settings), context.train_source
    encoder = frozen_encoder(context)
    features = cached_features(context, settings, encoder)
    batches = image_batches(context, settings, features=features)
    with initial_weights(seed, "tokenizer"):
        tokenizer = build_tokenizer(section, context.recipe.data.image_size, registry, encoder)
    tokenizer.to(context.device)
    if section.initial_weights is not None:
        load_initial_weights(context, tokenizer)
    else:
        _prepare_bottleneck(context, tokenizer)
    probe_tokenizer(tokenizer, section, registry)

    refiner = trained_refiner(context, encoder)
    teacher = None
    if section.teacher is not None:
        teacher = build_teacher(section.teacher, frozen_encoder(context, "teacher"))
    total = context.print_length(settings, len(source))
    adversarial, discriminator = _adversarial(context, tokenizer, total)
    with initial_weights(seed, "regularizers"):
        objective = build_objective(
            tokenizer,
            section,
            registry,
            refiner,
            adversarial,
            context.world,
            per_epoch=_steps_per_epoch(context),
            teacher=teacher,
        )
    if settings.precision == "bf16":
        cast_frozen_networks(objective, adversarial.discriminator if adversarial else None)
    task = TrainTask(
        objective,
        batches,
        discriminator=discriminator,
        begin_step=objective.begin_step,
        check=objective.check,
        signed=(*SIGNED, *_changing(section)),
    )
    train(task, settings, total, context.train_context(settings, len(source)))
    save_weights(context, tokenizer, "tokenizer.safetensors")


def _prepare_bottleneck(context: StageContext, tokenizer: ComposedTokenizer) -> None:
    """Load its tensors; some bottlenecks standardize by statistics of the training images."""
    settings, bottleneck = context.recipe.tokenizer_section.train, tokenizer.bottleneck
    bottleneck.load_pretrained()
    if count := min(bottleneck.statistics_images, len(context.train_source)):
        steps = max(1, count // settings.batch_size)
        measure_on_main(context, settings, steps, bottleneck, tokenizer.measure)


def _steps_per_epoch(context: StageContext) -> float:
    return len(context.train_source) / context.recipe.tokenizer_section.train.batch_size


def _changing(section: TokenizerSection) -> list[str]:
    """Regularizers whose weight changes: the loss may jump with them."""
    terms = section.active_regularizers.items()
    return [label for label, term in terms if term.start or term.schedule]


def _adversarial(
    context: StageContext, tokenizer: ComposedTokenizer, total: int
) -> tuple[AdversarialTerm | None, TrainTask | None]:
    """The adversarial term and the training of its discriminator, if the recipe has them."""
    section, settings = (
        context.recipe.tokenizer_section.active_adversarial,
        context.recipe.tokenizer_section.train,
    )
    if section is None:
        return None, None
    schedule = Schedule.in_steps(
        section.update_from,
        section.start,
        section.warmup,
        per_epoch=_steps_per_epoch(context),
        total=total,
    )
    size = context.recipe.data.image_size
    with initial_weights(context.seed(settings), "discriminator"):
        discriminator = build_discriminator(section.discriminator, size, context.registry)
        discriminator.load_pretrained()
    discriminator.to(context.device)
    probe_discriminator(discriminator, section.discriminator, size, context.registry)
    tokens = StepTokens()
    term = AdversarialTerm(discriminator, schedule, section.weight, section.adaptive, tokens)
    loss = DiscriminatorLoss(discriminator, tokenizer, tokens)
    return term, TrainTask(loss, optimizer=section.optimizer, first_step=schedule.update_from)
