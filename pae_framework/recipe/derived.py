"""Values computed from a recipe alone; nothing is built or read. No torch."""

from __future__ import annotations

from pae_framework.config import LatentShape
from pae_framework.recipe.components import EncoderComponent
from pae_framework.recipe.models import Recipe
from pae_framework.training.train_settings import TrainSettings


def latent_shape(recipe: Recipe) -> LatentShape:
    """Shape (C, h, w) of one latent."""
    return recipe.tokenizer.latent_shape(recipe.data.image_size)


def encoder_component(recipe: Recipe, name: str) -> EncoderComponent:
    """The encoder, extractor or teacher, which the recipe must have, by the name of its stage."""
    if name == "extractor":
        component: EncoderComponent | None = recipe.extractor
    else:
        section = recipe.tokenizer_section
        component = section.teacher if name == "teacher" else section.encoder
    assert component is not None
    return component


def compares_classes(recipe: Recipe) -> bool:
    """Whether training and test images must have the same classes.

    A tokenizer alone reads no labels, so it can be evaluated on any images.
    """
    return recipe.generator is not None or recipe.extractor is not None


def known_steps(train: TrainSettings, recipe: Recipe) -> int | None:
    """Steps of a training, if the recipe determines them; else None."""
    if train.steps is not None:
        return train.steps
    images = recipe.data.train.config.image_count()
    return None if images is None else train.total_steps(images)


def known_classes(recipe: Recipe) -> int | None:
    """Number of classes of the training images, if the recipe determines it; else None.

    The number of the data source takes precedence over the number set for the generator.
    """
    count = recipe.data.train.config.class_count()
    if count is None and recipe.generator is not None:
        return recipe.generator.config.stated_classes()
    return count
