"""Stages ``extractor``, ``encoder`` and ``teacher``: train an encoder with its own objective.

The extractor is used only for evaluation (Frechet distances are measured in its features); the
encoder is the prior of the tokenizer; regularizers use the teacher's features. They never share
weights.
"""

from __future__ import annotations

from pae_framework.build import build_encoder
from pae_framework.execution.context import StageContext, initial_weights
from pae_framework.execution.probe import probe_encoder
from pae_framework.execution.training import image_batches, save_weights
from pae_framework.recipe.derived import encoder_component
from pae_framework.training.loop import train
from pae_framework.training.task import TrainTask


def run(context: StageContext) -> None:
    """Train the network of this stage and write ``encoder.safetensors``."""
    recipe, name, source = context.recipe, context.planned.name, context.train_source
    component = encoder_component(recipe, name)
    settings = component.train
    assert settings is not None
    with initial_weights(context.seed(settings), name):
        encoder = build_encoder(component, recipe.data.image_size, context.registry)
        encoder.load_pretrained()
        objective = encoder.pretraining(len(source.class_names))
    probe_encoder(encoder, component, context.registry)
    total = context.print_length(settings, len(source))
    task = TrainTask(objective, image_batches(context, settings))
    train(task, settings, total, context.train_context(settings, len(source)))
    save_weights(context, encoder, "encoder.safetensors")
