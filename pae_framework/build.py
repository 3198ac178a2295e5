"""From a recipe to modules: the only place that looks up components and builds them.

Initial weights come from torch's default generator. ``with META`` builds everything on the meta
device: names and shapes without memory, weights or files. All functions raise PluginError if a
component cannot be imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pae_framework.config import LatentShape
from pae_framework.contracts import (
    Bottleneck,
    DataSource,
    Discriminator,
    Encoder,
    Evaluator,
    Generator,
    Regularizer,
    Tokenizer,
    Tracker,
)
from pae_framework.errors import PaeError, PluginError
from pae_framework.plugin_code import describe
from pae_framework.recipe.components import (
    Component,
    DataSourceComponent,
    DiscriminatorComponent,
    EncoderComponent,
    EvaluatorComponent,
    GuideComponent,
    TeacherComponent,
    TokenizerComponent,
    TrackerComponent,
    active_components,
)
from pae_framework.recipe.models import Recipe, TokenizerSection
from pae_framework.recipe.stage_table import STAGES
from pae_framework.registry import Registry
from pae_framework.tokenizer.losses.adversarial import AdversarialTerm
from pae_framework.tokenizer.losses.objective import TokenizerObjective
from pae_framework.tokenizer.losses.reconstruction import ReconstructionTerms
from pae_framework.tokenizer.losses.terms import Ramp, RegularizerTerm
from pae_framework.tokenizer.model import ComposedTokenizer
from pae_framework.tokenizer.refinement import PriorRefiner
from pae_framework.tokenizer.teacher import Teacher
from pae_framework.world import ONE_PROCESS, World

META = torch.device("meta")


def build_source(component: DataSourceComponent, image_size: int, registry: Registry) -> DataSource:
    """The data source, open for reading.

    Raises:
        DataError: its files are missing or damaged.
    """
    source: DataSource = _make(component, registry, image_size)
    return source


def build_encoder(component: EncoderComponent, image_size: int, registry: Registry) -> Encoder:
    """The encoder, untrained."""
    encoder: Encoder = _make(component, registry, image_size)
    return encoder


def build_tokenizer(
    section: TokenizerSection, image_size: int, registry: Registry, encoder: Encoder
) -> ComposedTokenizer:
    """The tokenizer around ``encoder``, whose weights stay; the rest is untrained."""
    assert section.decoder.config.image_size(encoder.grid) == image_size
    decoded = section.bottleneck.config.decoder_width(encoder.width)
    return ComposedTokenizer(
        encoder,
        _make(section.modulator, registry, encoder),
        build_bottleneck(section, registry, encoder),
        _make(section.decoder, registry, decoded, encoder.grid),
        section.train_encoder,
        section.attention,
    )


def build_tokenizer_component(
    component: TokenizerComponent, image_size: int, registry: Registry
) -> Tokenizer:
    """A tokenizer that is one component, untrained."""
    tokenizer: Tokenizer = _make(component, registry, image_size)
    return tokenizer


def build_bottleneck(section: TokenizerSection, registry: Registry, encoder: Encoder) -> Bottleneck:
    """The bottleneck behind ``encoder``, before it measures or loads statistics."""
    bottleneck: Bottleneck = _make(section.bottleneck, registry, encoder.width, encoder.grid)
    return bottleneck


def build_refiner(section: TokenizerSection, encoder: Encoder) -> PriorRefiner:
    """The networks of prior refinement, untrained; the section must have a ``refinement``."""
    assert section.refinement is not None
    channels = section.bottleneck.config.latent_channels(encoder.width)
    return PriorRefiner(section.refinement, encoder, channels, section.attention)


def build_generator(
    component: GuideComponent, latent: LatentShape, num_classes: int, registry: Registry
) -> Generator:
    """The generator, untrained."""
    generator: Generator = _make(component, registry, latent, num_classes)
    return generator


def build_discriminator(
    component: DiscriminatorComponent, image_size: int, registry: Registry
) -> Discriminator:
    """The discriminator, untrained; :meth:`Discriminator.load_pretrained` loads its frozen part.

    Raises:
        ValueError: it cannot take images of this size.
    """
    component.config.check_image_size(image_size)
    discriminator: Discriminator = _make(component, registry, image_size)
    return discriminator


def build_teacher(component: TeacherComponent, encoder: Encoder) -> Teacher:
    """The teacher around its encoder, which has its weights."""
    return Teacher(encoder, component.preprocessing == "signed")


def build_regularizers(
    section: TokenizerSection,
    registry: Registry,
    tokenizer: ComposedTokenizer,
    per_epoch: float = 1.0,
) -> list[RegularizerTerm]:
    """The active regularizers, prepared for the tokenizer.

    Args:
        section: has their settings.
        registry: knows their classes.
        tokenizer: whose latents they shape.
        per_epoch: optimizer steps per epoch, for weights with times in epochs.
    """
    latent = tokenizer.latent
    width = (section.teacher or section.encoder).config.token_width()
    channels = width if section.target == "raw" else latent.channels
    terms: list[RegularizerTerm] = []
    for label, component in section.active_regularizers.items():
        config = component.config
        regularizer: Regularizer = _make(component, registry)
        regularizer.prepare(latent, width, channels if config.needs_target else None)
        ramp = Ramp.of_weight(config.weight, component.start, per_epoch)
        terms.append(RegularizerTerm(label, regularizer, ramp))
    return terms


def build_objective(
    tokenizer: ComposedTokenizer,
    section: TokenizerSection,
    registry: Registry,
    refiner: PriorRefiner | None = None,
    adversarial: AdversarialTerm | None = None,
    world: World = ONE_PROCESS,
    per_epoch: float = 1.0,
    teacher: Teacher | None = None,
) -> TokenizerObjective:
    """The tokenizer with its loss; terms with weight 0 are not built.

    ``per_epoch`` is the number of optimizer steps per epoch, for weights with times in epochs.

    Raises:
        UsageError, DataError, CheckpointError: see ReconstructionTerms.
    """
    return TokenizerObjective(
        tokenizer,
        regularizers=build_regularizers(section, registry, tokenizer, per_epoch),
        reconstruction=ReconstructionTerms(section.reconstruction, tokenizer.encoder),
        adversarial=adversarial,
        target=section.active_target,
        refiner=refiner,
        teacher=teacher,
        noise=section.noise,
        world=world,
        shares_every=section.log_shares_every,
    )


def build_evaluator(component: EvaluatorComponent, registry: Registry) -> Evaluator:
    """The evaluator."""
    evaluator: Evaluator = _make(component, registry)
    return evaluator


def build_tracker(component: TrackerComponent, registry: Registry) -> Tracker:
    """The tracker."""
    tracker: Tracker = _make(component, registry)
    return tracker


def import_components(section: Any, registry: Registry) -> None:
    """Import the class of every active component of a recipe or section.

    A plugin that registered a wrong name is then reported before the first stage, not in the last.
    """
    for component in active_components(section):
        _class(component, registry)


@dataclass(frozen=True)
class Networks:
    """The networks of a recipe; None if the recipe has no such network."""

    tokenizer: Tokenizer
    extractor: Encoder | None
    teacher: Encoder | None
    refiner: PriorRefiner | None
    generator: Generator | None
    discriminator: Discriminator | None

    @property
    def composed(self) -> ComposedTokenizer | None:
        """The tokenizer, if it is composed."""
        return self.tokenizer if isinstance(self.tokenizer, ComposedTokenizer) else None

    @property
    def encoder(self) -> Encoder | None:
        """The composed tokenizer's encoder."""
        return None if self.composed is None else self.composed.encoder


def build_networks(recipe: Recipe, registry: Registry, num_classes: int) -> Networks:
    """Every network of a recipe, on the meta device.

    Raises:
        NotImplementedError, RuntimeError: a network cannot be built there.
    """
    section, size = recipe.composed, recipe.data.image_size
    adversarial = None if section is None else section.active_adversarial
    extractor = teacher = refiner = generator = discriminator = None
    tokenizer: Tokenizer
    if isinstance(recipe.tokenizer, TokenizerComponent):
        with META:
            tokenizer = build_tokenizer_component(recipe.tokenizer, size, registry).eval()
    else:
        # train() freezes the weights of a trained encoder that its tokens do not depend on.
        tokenizer = composed = meta_tokenizer(recipe.tokenizer, size, registry).train()
        if STAGES["refine"].exists(recipe):
            with META:
                refiner = build_refiner(recipe.tokenizer, composed.encoder)
    with META:
        if recipe.extractor is not None:
            side = recipe.extractor.image_size(size)
            extractor = build_encoder(recipe.extractor, side, registry).eval()
        if section is not None and section.teacher is not None:
            teacher = build_encoder(section.teacher, size, registry).eval()
        if recipe.generator is not None:
            generator = build_generator(recipe.generator, tokenizer.latent, num_classes, registry)
            generator.eval()
        if adversarial is not None:
            discriminator = build_discriminator(adversarial.discriminator, size, registry)
    return Networks(tokenizer, extractor, teacher, refiner, generator, discriminator)


def meta_tokenizer(
    section: TokenizerSection, image_size: int, registry: Registry
) -> ComposedTokenizer:
    """The composed tokenizer on the meta device."""
    with META:
        encoder = build_encoder(section.encoder, image_size, registry).eval()
        return build_tokenizer(section, image_size, registry, encoder)


def _class(component: Component, registry: Registry) -> type[Any]:
    return registry.find(component.kind, component.use).component_class()


def _make(component: Component, registry: Registry, *arguments: Any) -> Any:
    """The component of a config, built with further arguments."""
    spec = registry.find(component.kind, component.use)
    made = spec.component_class()
    try:
        return made(component.config, *arguments)
    except PaeError:
        raise
    except Exception as error:
        if spec.built_in:
            raise
        raise PluginError(
            f"{spec.origin}: {spec.reference} cannot be built: {describe(error)}"
        ) from error
