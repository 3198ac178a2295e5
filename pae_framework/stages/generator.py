"""Stage ``generator``: train the velocity model on the latents by flow matching, or load it."""

from __future__ import annotations

from torch import Tensor

from pae_framework.data.images import ImageBatches
from pae_framework.data.latent_dataset import LatentBatches
from pae_framework.execution.artifacts import untrained_generator
from pae_framework.execution.context import StageContext
from pae_framework.execution.run_latents import run_latents, run_statistics
from pae_framework.execution.training import flips, image_batches, step_stream
from pae_framework.execution.unstored_latents import Encode, encoding_tokenizer, latent_encoder
from pae_framework.flow.matching import FlowObjective
from pae_framework.interop.generator_weights import load_generator_weights
from pae_framework.training.loop import train
from pae_framework.training.task import TrainTask
from pae_framework.training.train_settings import TrainSettings


def run(context: StageContext) -> None:
    """Train the generator on normalized latents; with ``generator.weights``, load it.

    The latents are read, or encoded if the recipe stores none (``latents.stored``).
    """
    component = context.recipe.generator
    assert component is not None
    if component.weights is not None:
        if context.world.is_main:
            load_generator_weights(context)
        return
    settings = component.train
    batches: LatentBatches | ImageBatches
    if context.recipe.latents.stored:
        encode, batches = None, _stored(context, settings)
    else:
        encode, batches = _normalized_encoder(context), image_batches(context, settings)

    model, images = untrained_generator(context), batches.stream.length
    total = context.print_length(settings, images)
    task = TrainTask(FlowObjective(model, component.objective, encode), batches, saved=model)
    train(task, settings, total, context.train_context(settings, images))


def _stored(context: StageContext, settings: TrainSettings) -> LatentBatches:
    latents, statistics = run_latents(context), run_statistics(context)
    stream = step_stream(context, settings, len(latents))
    flip = flips(context, settings)
    return LatentBatches(latents, statistics.normalize, stream, settings.workers, flip)


def _normalized_encoder(context: StageContext) -> Encode:
    statistics = run_statistics(context)
    encode = latent_encoder(encoding_tokenizer(context), context.recipe.latents, context.device)

    def normalized(images: Tensor) -> Tensor:
        return statistics.normalize(encode(images).float())

    return normalized
