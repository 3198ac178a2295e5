"""Stage ``tokenizer``: train everything around the frozen encoder."""

from __future__ import annotations

from pae_framework.data.images import ImageBatches
from pae_framework.data.stream import CountStream
from pae_framework.stages.context import StageContext, initial_weights
from pae_framework.stages.parts import frozen_encoder, trained_refiner
from pae_framework.tensor_files import save_tensors
from pae_framework.tokenizer.model import build_tokenizer
from pae_framework.tokenizer.objective import build_objective
from pae_framework.training.loop import Trainee, train


def run(context: StageContext) -> None:
    """Train the tokenizer with the recipe's reconstruction terms and regularizers.

    Parameters that regularizers bring are trained with it; ``tokenizer.safetensors`` is without.
    """
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
    with initial_weights(seed, "regularizers"):
        objective = build_objective(tokenizer, section, context.registry, refiner)

    total = context.length(settings, len(source))
    train(Trainee(objective, batches), settings, total, context.workplace(settings))
    save_tensors(tokenizer.state_dict(), context.directory / "tokenizer.safetensors")
