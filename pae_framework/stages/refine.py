"""Stage ``refine``: learn compact targets from the frozen features, before the tokenizer (PAE)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pae_framework.build import build_refiner
from pae_framework.contracts import Encoder
from pae_framework.data.images import ImageBatches
from pae_framework.data.stream import CountStream
from pae_framework.execution.artifacts import frozen_encoder
from pae_framework.execution.context import StageContext, initial_weights
from pae_framework.tokenizer.refinement import RefinementObjective
from pae_framework.training.loop import train
from pae_framework.training.task import TrainTask

STATISTICS_STEPS = 20
"""Batches the feature mean is measured on, where the recipe centres the features."""


def run(context: StageContext) -> None:
    """Train projector and deprojector on the encoder's features."""
    recipe = context.recipe
    settings = recipe.tokenizer.refinement
    assert settings is not None
    training = settings.train
    seed, source = context.seed(training), context.train_source
    encoder = frozen_encoder(context)
    with initial_weights(seed, "refine"):
        refiner = build_refiner(recipe.tokenizer, encoder)
    refiner.structure.load_pretrained()

    stream = CountStream(len(source), training.batch_size, seed)
    batches = ImageBatches(source, stream, recipe.data.flip, training.workers)
    if settings.centre:
        refiner.to(context.device)
        refiner.measure(_tokens(encoder, batches, context.device))

    total = training.total_steps(len(source))
    context.print_length(training, len(source))
    task = TrainTask(RefinementObjective(refiner, encoder), batches, saved=refiner)
    train(task, training, total, context.train_context(training))


@torch.no_grad()
def _tokens(encoder: Encoder, batches: ImageBatches, device: torch.device) -> Iterator[Tensor]:
    for images, _ in batches(0, STATISTICS_STEPS):
        yield encoder(encoder.normalize(images.to(device))).tokens
