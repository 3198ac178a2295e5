"""Checks that the sections of a recipe are consistent, before anything is built. No torch.

Rules between settings are enforced here. Constructors rely on them and check only what a recipe
cannot know.
"""

from __future__ import annotations

from pae_framework.errors import Inconsistency
from pae_framework.recipe.checks.encoder_checks import check_encoder_training
from pae_framework.recipe.checks.launch_checks import launch_stages
from pae_framework.recipe.checks.loss_checks import check_losses
from pae_framework.recipe.checks.sampling_checks import (
    check_evaluators,
    check_images,
    check_sampling,
)
from pae_framework.recipe.checks.shape_checks import check_shapes
from pae_framework.recipe.checks.tokenizer_checks import check_tokenizer
from pae_framework.recipe.checks.training_checks import check_training
from pae_framework.recipe.models import Recipe


def inconsistencies(recipe: Recipe) -> list[Inconsistency]:
    """All inconsistencies of a recipe whose single values are valid."""
    checks = (
        check_shapes,
        check_tokenizer,
        check_losses,
        check_encoder_training,
        check_training,
        check_sampling,
        check_images,
        check_evaluators,
        launch_stages,
    )
    return [found for check in checks for found in check(recipe)]
