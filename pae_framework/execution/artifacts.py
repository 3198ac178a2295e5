"""Finished networks of a run, loaded from the stages that trained them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from pae_framework.build import (
    build_encoder,
    build_generator,
    build_refiner,
    build_tokenizer,
    build_tokenizer_component,
)
from pae_framework.contracts import Encoder, Generator, Tokenizer
from pae_framework.errors import PluginError
from pae_framework.execution.context import StageContext, initial_weights
from pae_framework.execution.probe import (
    probe_encoder,
    probe_generator,
    probe_tokenizer,
    probe_tokenizer_component,
)
from pae_framework.recipe.components import EncoderComponent, TokenizerComponent
from pae_framework.recipe.derived import latent_shape
from pae_framework.recipe.models import Recipe
from pae_framework.tensor_files import load_weights, weights_digest
from pae_framework.tokenizer.refinement import PriorRefiner
from pae_framework.training.train_settings import TrainSettings

Module = TypeVar("Module", bound=nn.Module)


def frozen_encoder(context: StageContext, stage: str = "encoder") -> Encoder:
    """The recipe's encoder, extractor or teacher, frozen, on the device.

    Its weights come from its own stage, from an imported tokenizer, or from
    :meth:`Encoder.load_pretrained`. An encoder is the one before the tokenizer is trained.

    Raises:
        PluginError: it breaks its contract, or has other weights than in an earlier stage.
    """
    recipe = context.recipe
    if stage == "extractor":
        component: EncoderComponent | None = recipe.extractor
    else:
        section = recipe.tokenizer_section
        component = section.teacher if stage == "teacher" else section.encoder
    assert component is not None
    with _initial_weights(context, _first_training(recipe, component), stage):
        size = component.image_size(recipe.data.image_size)
        encoder = build_encoder(component, size, context.registry)
        if (path := _encoder_file(context, stage)) is not None:
            load_weights(encoder, path)
        else:
            encoder.load_pretrained()
    require_same_weights(encoder, component, context, stage)
    freeze(encoder, context)
    probe_encoder(encoder, component, context.registry)
    return encoder


def _first_training(recipe: Recipe, component: EncoderComponent) -> TrainSettings | None:
    """Settings of the training that starts from the component's initial weights; None if none."""
    section = recipe.composed
    if section is None or component is not section.encoder or not section.train_encoder:
        return component.train
    return component.train or section.train


def _encoder_file(context: StageContext, stage: str) -> Path | None:
    """The run's file of the encoder's weights; None if there is none."""
    name = "encoder.safetensors"
    if context.reads(stage):
        return context.file(stage, name)
    if stage == "encoder" and context.reads("tokenizer") and context.results("tokenizer").has(name):
        return context.file("tokenizer", name)  # imported with the tokenizer
    return None


def trained_refiner(context: StageContext, encoder: Encoder) -> PriorRefiner | None:
    """The networks of stage ``refine``, frozen, on the device; None if it is not an input."""
    if not context.reads("refine"):
        return None
    section = context.recipe.tokenizer_section
    assert section.refinement is not None
    with _initial_weights(context, section.refinement.train, "refine"):
        refiner = build_refiner(section, encoder)
    load_weights(refiner, context.file("refine", "weights.safetensors"))
    return freeze(refiner, context)


def trained_tokenizer(context: StageContext) -> Tokenizer:
    """The run's tokenizer, frozen, on the device."""
    recipe, registry = context.recipe, context.registry
    weights = context.file("tokenizer", "tokenizer.safetensors")
    if isinstance(recipe.tokenizer, TokenizerComponent):
        whole = _untrained_component(context, recipe.tokenizer)
        load_weights(whole, weights)
        return freeze(whole, context)
    section = recipe.tokenizer
    if section.train_encoder:  # the tokenizer's file has its weights
        with _initial_weights(context, _first_training(recipe, section.encoder), "encoder"):
            encoder = build_encoder(section.encoder, recipe.data.image_size, registry)
    else:
        encoder = frozen_encoder(context)
    with _initial_weights(context, section.train, "tokenizer"):
        tokenizer = build_tokenizer(section, recipe.data.image_size, registry, encoder)
    load_weights(tokenizer, weights)
    freeze(tokenizer, context)
    if section.train_encoder:
        probe_encoder(encoder, section.encoder, registry)
    probe_tokenizer(tokenizer, section, registry)
    return tokenizer


def pretrained_tokenizer(context: StageContext) -> Tokenizer:
    """The run's tokenizer, which is one component, with its own weights, frozen, on the device.

    Raises:
        DataError, CheckpointError: see :meth:`Tokenizer.load_pretrained`.
        CheckpointError: it gives other shapes than its config states.
        PluginError: the same, of a plugin.
    """
    component = context.recipe.tokenizer
    assert isinstance(component, TokenizerComponent)
    tokenizer = _untrained_component(context, component)
    tokenizer.load_pretrained()
    freeze(tokenizer, context)
    size = context.recipe.data.image_size
    probe_tokenizer_component(tokenizer, component, size, context.registry)
    return tokenizer


def _untrained_component(context: StageContext, component: TokenizerComponent) -> Tokenizer:
    with _initial_weights(context, None, "tokenizer"):
        size = context.recipe.data.image_size
        return build_tokenizer_component(component, size, context.registry)


def untrained_generator(context: StageContext, device: torch.device | None = None) -> Generator:
    """The recipe's generator with initial weights, on ``device`` (None: the CPU)."""
    recipe = context.recipe
    assert recipe.generator is not None
    # Outside of the block below, because it may read the training images.
    shape, classes, registry = latent_shape(recipe), context.num_classes, context.registry
    with _initial_weights(context, recipe.generator.train, "generator"), device or nullcontext():
        generator = build_generator(recipe.generator, shape, classes, registry)
    if device is None:  # a network on the meta device has nothing to probe
        probe_generator(generator, recipe.generator, shape, registry)
    return generator


def trained_generator(context: StageContext) -> Generator:
    """The run's generator, frozen, on the device, with the weights it samples with."""
    generator = untrained_generator(context)
    load_weights(generator, context.file("generator", "weights.safetensors"))
    return freeze(generator, context)


def require_same_weights(
    encoder: Encoder, component: EncoderComponent, context: StageContext, stage: str
) -> None:
    """Record a digest of the encoder's weights, and compare it with the stages that used it before.

    Raises:
        PluginError: an input of this stage, or this stage before an interruption, has another.
    """
    key, digest = f"{stage}_digest", weights_digest(encoder)
    for name, recorded in context.recorded(key).items():
        if recorded != digest:
            spec = context.registry.find("encoder", component.use)
            raise PluginError(
                f"{spec.origin}: {spec.reference} ({spec.target}) has other weights than stage "
                f"{name} used (digest {digest}, {recorded} there); its weights must not depend on "
                "time or chance. After a repair, raise the `version` of its config"
            )
    context.update_record(**{key: digest})


@contextmanager
def _initial_weights(
    context: StageContext, settings: TrainSettings | None, name: str
) -> Iterator[None]:
    """The random states in which the stage ``name`` builds its networks.

    What a network draws outside its state dict is then the same in every process. Networks that no
    stage trains do not depend on the recipe's seed, because members of a sweep may share stages.
    """
    with initial_weights(0 if settings is None else context.seed(settings), name):
        yield


def freeze(module: Module, context: StageContext) -> Module:
    """The module in eval mode, without gradients for its weights, on the device of ``context``."""
    return module.requires_grad_(False).eval().to(context.device)
