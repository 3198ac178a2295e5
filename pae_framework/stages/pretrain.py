"""Stages ``extractor`` and ``encoder``: train an encoder by its own objective, then keep it frozen.

The extractor judges (Frechet distances are measured in its features); the encoder is the prior.
They are the same kind of thing trained for different ends, and never share weights.
"""

from __future__ import annotations

from pae_framework.build import build_encoder
from pae_framework.data.images import ImageBatches
from pae_framework.data.stream import CountStream
from pae_framework.execution.context import StageContext, initial_weights
from pae_framework.tensor_files import save_tensors
from pae_framework.training.loop import train
from pae_framework.training.task import TrainTask


def run(context: StageContext) -> None:
    """Train the network of this stage and write ``encoder.safetensors``."""
    recipe, name = context.recipe, context.planned.name
    component = recipe.extractor if name == "extractor" else recipe.tokenizer.encoder
    assert component is not None
    settings = component.train
    assert settings is not None
    seed, source = context.seed(settings), context.train_source
    with initial_weights(seed, name):
        encoder = build_encoder(component, recipe.data.image_size, context.registry)
        objective = encoder.pretraining(len(source.class_names))

    stream = CountStream(len(source), settings.batch_size, seed)
    batches = ImageBatches(source, stream, recipe.data.flip, settings.workers)
    total = settings.total_steps(len(source))
    context.print_length(settings, len(source))
    train(TrainTask(objective, batches), settings, total, context.train_context(settings))
    save_tensors(encoder.state_dict(), context.directory / "encoder.safetensors")
