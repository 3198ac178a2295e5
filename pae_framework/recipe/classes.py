"""How many classes a recipe's labels have, as far as it says so itself. No torch."""

from __future__ import annotations

from pae_framework.recipe.models import Recipe


def known_classes(recipe: Recipe) -> int | None:
    """Classes of the training images, told by their source or else stated for the generator.

    None: they must be counted.
    """
    counted = recipe.data.train.config.class_count()
    if counted is None and recipe.generator is not None:
        return recipe.generator.config.stated_classes()
    return counted
