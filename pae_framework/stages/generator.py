"""Stage ``generator``: train the velocity model on the latents by flow matching."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pae_framework.contracts import LossTerms
from pae_framework.data.latents import LatentDataset
from pae_framework.data.statistics import load_statistics
from pae_framework.data.stream import CountStream
from pae_framework.flow.objective import flow_loss
from pae_framework.stages.context import StageContext, initial_weights
from pae_framework.stages.parts import new_generator
from pae_framework.training.loop import Batch, Trainee, train


def run(context: StageContext) -> None:
    """Train the generator on normalised latents."""
    component = context.recipe.generator
    assert component is not None
    settings = component.train
    seed = context.seed(settings)
    folder = context.require("latents")
    dataset, statistics = LatentDataset(folder), load_statistics(folder)
    with initial_weights(seed, "generator"):
        model = new_generator(context, dataset.shape, len(context.train_source.class_names))
    stream = CountStream(len(dataset), settings.batch_size, seed)

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            latents, labels = dataset.batch(stream.batch(step), stream.flips(step))
            yield statistics.normalize(latents), labels

    def loss(batch: Batch, randomness: torch.Generator) -> LossTerms:
        latents, labels = batch
        return flow_loss(model, latents, labels, component.objective, randomness)

    total = context.length(settings, len(dataset))
    train(Trainee(model, loss, batches), settings, total, context.workplace(settings))
