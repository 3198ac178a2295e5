"""Stage ``refine``: learn compact targets from the frozen features, before the tokenizer (PAE)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor

from pae_framework.build import build_refiner
from pae_framework.contracts import Encoder
from pae_framework.execution.artifacts import frozen_encoder
from pae_framework.execution.cached_features import cached_features
from pae_framework.execution.context import StageContext, initial_weights
from pae_framework.execution.training import image_batches, measure_on_main
from pae_framework.tokenizer.refinement import RefinementObjective
from pae_framework.training.frozen_casts import cast_frozen
from pae_framework.training.loop import train
from pae_framework.training.task import TrainTask

STATISTICS_STEPS = 20
"""Number of batches on which the mean feature is measured, for ``centre``."""


def run(context: StageContext) -> None:
    """Train projector and deprojector on the encoder's features."""
    section = context.recipe.tokenizer_section
    assert section.refinement is not None
    settings = section.refinement.train
    encoder = frozen_encoder(context)
    features = cached_features(context, settings, encoder)
    batches = image_batches(context, settings, features=features)
    with initial_weights(context.seed(settings), "refine"):
        refiner = build_refiner(section, encoder)
    refiner.structure.load_pretrained()
    if section.refinement.centre:
        refiner.to(context.device)
        measure_on_main(
            context,
            settings,
            STATISTICS_STEPS,
            refiner,
            lambda batches: refiner.measure(_tokens(encoder, batches)),
        )
    if settings.precision == "bf16":
        shape = (2, 3, encoder.image_size, encoder.image_size)
        images = partial(torch.rand, shape, device=context.device)
        cast_frozen(encoder, lambda: list(_tokens(encoder, [images()])))
    count = len(context.train_source)
    total = context.print_length(settings, count)
    task = TrainTask(RefinementObjective(refiner, encoder), batches, saved=refiner)
    train(task, settings, total, context.train_context(settings, count))


@torch.no_grad()
def _tokens(encoder: Encoder, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Tokens (B, N, D) of batches of images (B, 3, S, S)."""
    for images in batches:
        yield encoder(encoder.normalize(images)).tokens
