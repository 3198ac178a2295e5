"""What the training stages have in common."""

from __future__ import annotations

from pae_framework.data.images import ImageBatches
from pae_framework.data.stream import CountStream
from pae_framework.execution.context import StageContext
from pae_framework.training.train_settings import TrainSettings


def image_batches(context: StageContext, settings: TrainSettings) -> ImageBatches:
    """Batches of the training images, in the order of the stage's seed."""
    source = context.train_source
    stream = CountStream(len(source), settings.batch_size, context.seed(settings))
    return ImageBatches(source, stream, context.recipe.data.flip, settings.workers)
