"""Stage ``generator``: train the velocity model on the latents by flow matching, or load it."""

from __future__ import annotations

from pae_framework.data.latent_dataset import LatentBatches
from pae_framework.execution.artifacts import untrained_generator
from pae_framework.execution.context import StageContext
from pae_framework.execution.run_latents import run_latents, run_statistics
from pae_framework.execution.training import step_stream
from pae_framework.flow.matching import FlowObjective
from pae_framework.interop.generator_weights import load_generator_weights
from pae_framework.training.loop import train
from pae_framework.training.task import TrainTask


def run(context: StageContext) -> None:
    """Train the generator on normalized latents; with ``generator.weights``, load it."""
    component = context.recipe.generator
    assert component is not None
    if component.weights is not None:
        if context.world.is_main:
            load_generator_weights(context)
        return
    settings = component.train
    latents, statistics = run_latents(context), run_statistics(context)
    stream = step_stream(context, settings, len(latents))
    flip = context.recipe.data.flip
    batches = LatentBatches(latents, statistics.normalize, stream, settings.workers, flip)

    model = untrained_generator(context)
    total = context.print_length(settings, len(latents))
    task = TrainTask(FlowObjective(model, component.objective), batches, saved=model)
    train(task, settings, total, context.train_context(settings, len(latents)))
