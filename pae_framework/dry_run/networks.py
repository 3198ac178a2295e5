"""The networks of a recipe on the meta device: shapes without memory, weights or files."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from pae_framework.contracts import Encoder, Generator
from pae_framework.plugins import Registry
from pae_framework.recipe.components import EncoderComponent
from pae_framework.recipe.models import Recipe
from pae_framework.tokenizer.model import Tokenizer, build_tokenizer
from pae_framework.tokenizer.refinement import PriorRefiner

META = torch.device("meta")


@dataclass(frozen=True)
class Networks:
    """What a recipe builds; None where it has no such part."""

    tokenizer: Tokenizer
    extractor: Encoder | None
    refiner: PriorRefiner | None
    generator: Generator | None
    discriminator: nn.Module | None

    @property
    def encoder(self) -> Encoder:
        """The tokenizer's."""
        return self.tokenizer.encoder


def build_networks(recipe: Recipe, registry: Registry, num_classes: int) -> Networks:
    """Build every network of a recipe, all numbers on the meta device.

    Raises:
        PluginError: a component does not import.
    """
    section, size = recipe.tokenizer, recipe.data.image_size
    with META:
        encoder = _encoder(section.encoder, size, registry)
        # In train mode, where a finetuned encoder knows which of its weights learn.
        tokenizer = build_tokenizer(section, size, registry, encoder).train()
        return Networks(
            tokenizer=tokenizer,
            extractor=_encoder(recipe.extractor, size, registry) if recipe.extractor else None,
            refiner=_refiner(recipe, encoder),
            generator=_generator(recipe, registry, tokenizer, num_classes),
            discriminator=_discriminator(recipe, registry),
        )


def _encoder(component: EncoderComponent, size: int, registry: Registry) -> Encoder:
    cls = registry.find("encoder", component.use).component_class()
    encoder = cls(component.config, size)
    assert isinstance(encoder, Encoder)
    return encoder.eval()


def _refiner(recipe: Recipe, encoder: Encoder) -> PriorRefiner | None:
    settings = recipe.tokenizer.refinement
    if settings is None:
        return None
    channels = recipe.tokenizer.bottleneck.config.latent_channels(encoder.width)
    return PriorRefiner(settings, encoder, channels)


def _generator(
    recipe: Recipe, registry: Registry, tokenizer: Tokenizer, num_classes: int
) -> Generator | None:
    if recipe.generator is None:
        return None
    cls = registry.find("generator", recipe.generator.use).component_class()
    generator = cls(recipe.generator.config, tokenizer.latent, num_classes)
    assert isinstance(generator, Generator)
    return generator.eval()


def _discriminator(recipe: Recipe, registry: Registry) -> nn.Module | None:
    section = recipe.tokenizer.adversarial
    if section is None or not section.weight:
        return None
    component = section.discriminator
    cls = registry.find("discriminator", component.use).component_class()
    discriminator = cls(component.config, recipe.data.image_size)
    assert isinstance(discriminator, nn.Module)
    return discriminator
