"""What training needs in memory, estimated from a recipe alone: nothing is built, no torch.

Per stage: the weights with their gradients, Adam's two moments and the average, all float32; the
frozen networks; and what the images that are in work at once leave for the backward pass (see
``block_activations`` in :mod:`pae_framework.config`). Left out: the CUDA context (about 0.5 GiB),
workspaces of single operations, fragmentation. Right within a factor of two, which a test holds
against measured steps of small networks; a part that does not tell its size makes it a lower bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pae_framework.config import block_activations
from pae_framework.recipe.components import EncoderComponent
from pae_framework.recipe.derived import known_classes, latent_shape
from pae_framework.recipe.models import Recipe, TokenizerSection
from pae_framework.recipe.nodes import KeyPath
from pae_framework.tokenizer.tokenizer_settings import RefinementSettings
from pae_framework.training.train_settings import TrainSettings

CLASSES = 1000
"""Taken where nobody has counted them: they only size the generator's label embedding."""


@dataclass(frozen=True)
class StageMemory:
    """Bytes a training stage needs: ``weights`` whatever the batch, ``activations`` for the
    ``images`` that are in work at once. ``unknown`` names parts whose size nobody can tell."""

    stage: str
    path: KeyPath
    """Where the recipe says how the stage trains."""
    weights: int
    activations: int
    images: int
    unknown: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.weights + self.activations


@dataclass(frozen=True)
class _Network:
    """A part of a stage: its weights, and the numbers one image leaves for the backward pass."""

    name: str
    parameters: int | None
    activations: int | None = 0
    trained: bool = True


def training_memory(recipe: Recipe, num_classes: int | None = None) -> list[StageMemory]:
    """An estimate for each stage of a recipe that trains, in the order they run.

    Args:
        recipe: the recipe.
        num_classes: classes of the training images; None: as the recipe says, or ``CLASSES``.
    """
    return list(_stages(recipe, num_classes or known_classes(recipe) or CLASSES))


def _stages(recipe: Recipe, num_classes: int) -> Iterator[StageMemory]:
    tokenizer, size = recipe.tokenizer, recipe.data.image_size
    for stage, encoder, path in (
        ("extractor", recipe.extractor, ("extractor", "train")),
        ("encoder", tokenizer.encoder, ("tokenizer", "encoder", "train")),
    ):
        if encoder is not None and encoder.train is not None:
            config = encoder.config
            own = _Network(stage, config.parameters(size), config.activations(size))
            yield _estimate(stage, path, encoder.train, [own])
    if tokenizer.weights is None:
        refinement = tokenizer.refinement
        if refinement is not None and tokenizer.target == "refined":
            networks = _refinement(tokenizer, refinement, size)
            path = ("tokenizer", "refinement", "train")
            yield _estimate("refine", path, refinement.train, networks)
        networks = _tokenizer(tokenizer, size)
        yield _estimate("tokenizer", ("tokenizer", "train"), tokenizer.train, networks)
    if recipe.generator is not None and recipe.generator.weights is None:
        generator, latent = recipe.generator.config, latent_shape(recipe)
        parameters = generator.parameters(latent, num_classes)
        own = _Network("generator", parameters, generator.activations(latent))
        yield _estimate("generator", ("generator", "train"), recipe.generator.train, [own])


def _estimate(
    stage: str, path: KeyPath, train: TrainSettings, networks: list[_Network]
) -> StageMemory:
    half = train.precision == "bf16"
    # weight, gradient, two moments; the average; autocast's copy, kept for the backward pass
    per_weight = 4 * 4 + (4 if train.ema else 0) + (2 if half else 0)
    weights = numbers = 0.0
    for network in networks:
        weights += (network.parameters or 0) * (per_weight if network.trained else 4)
        kept = network.activations or 0
        # A block's input is one of the 16 numbers it keeps; one block at a time has all of them.
        numbers += kept / 8 if network.trained and train.activation_checkpointing else kept
    images = train.batch_size // train.accumulate
    # Of the 16 numbers, autocast keeps both norms' inputs in float32 and the rest in half.
    per_number = 2.25 if half else 4
    return StageMemory(
        stage,
        path,
        weights=round(weights),
        activations=round(images * numbers * per_number),
        images=images,
        unknown=tuple(n.name for n in networks if n.parameters is None or n.activations is None),
    )


def _frozen_encoder(encoder: EncoderComponent, size: int) -> _Network:
    return _Network("encoder", encoder.config.parameters(size), trained=False)


def _refinement(
    tokenizer: TokenizerSection, settings: RefinementSettings, size: int
) -> list[_Network]:
    encoder = tokenizer.encoder.config
    width, tokens = encoder.token_width(), encoder.token_grid(size) ** 2
    channels = tokenizer.bottleneck.config.latent_channels(width)
    inner = settings.width or width
    blocks = settings.depth * 12 * inner**2
    parameters = blocks + (channels + width) * inner + _projection(width, channels)
    kept = block_activations(blocks, tokens, inner) + 6 * width * tokens
    return [_Network("refinement", parameters, kept), _frozen_encoder(tokenizer.encoder, size)]


def _tokenizer(tokenizer: TokenizerSection, size: int) -> list[_Network]:
    encoder, bottleneck = tokenizer.encoder.config, tokenizer.bottleneck.config
    modulator = tokenizer.modulator.config
    width, grid = encoder.token_width(), encoder.token_grid(size)
    decoder = tokenizer.decoder.config
    # Every decode that a regularizer learns from keeps as much as the reconstruction.
    decodes = tokenizer.decodes
    kept = decoder.activations(grid)
    networks = [
        _Network(
            "modulator", modulator.parameters(encoder, size), modulator.activations(encoder, size)
        ),
        _Network(
            "decoder", decoder.parameters(width, grid), None if kept is None else kept * decodes
        ),
    ]
    if bottleneck.projects:
        channels = bottleneck.latent_channels(width)
        inner = 6 * width * grid**2  # q, k, v, what attention gives, its projection, and the map
        parameters = 2 * _projection(width, channels)
        networks.append(_Network("projection", parameters, inner * (1 + decodes)))
    networks.append(_frozen_encoder(tokenizer.encoder, size))
    for name, term in tokenizer.reconstruction.active_terms.items():
        kept = term.activations(encoder, size)
        kept = None if kept is None else kept * decodes
        networks.append(_Network(name, term.parameters(), kept, trained=False))
    if (adversarial := tokenizer.active_adversarial) is not None:
        parameters_ = adversarial.discriminator.config.parameters(size)
        networks.append(_Network("discriminator", parameters_, None))
    return networks


def _projection(width: int, channels: int) -> int:
    """An attention and a 3 x 3 convolution between D and the latents' channels."""
    return 4 * width**2 + 9 * width * channels
