"""Estimates training memory from a recipe; no network is built. No torch.

Counted for each stage: weights, gradients, Adam's two moments and the EMA, all float32; the frozen
networks; the activations of one micro-batch (see ``block_activations`` in
:mod:`pae_framework.config`); and the copy in main memory from which checkpoints are written. Not
counted: the CUDA context (about 0.5 GiB), workspaces of operations, the weights that ``attention:
matmul`` keeps, fragmentation. The estimate is right within a factor of two; a test compares it with
measured steps of small networks. It is a lower bound if the size of a component is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pae_framework.config import block_activations
from pae_framework.recipe.components import EncoderComponent, TokenizerComponent
from pae_framework.recipe.derived import known_classes, latent_shape
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath
from pae_framework.recipe.stage_table import STAGES, Stage, trainings
from pae_framework.system.file_errors import gib
from pae_framework.training.train_settings import TrainSettings

CLASSES = 1000
"""Assumed number of classes if it is unknown; it affects only the generator's label embedding."""


@dataclass(frozen=True)
class StageMemory:
    """Estimated memory of a training stage, in bytes."""

    stage: str
    path: KeyPath
    """Key path of the stage's training settings."""
    weights: int
    """Of weights, gradients and optimizer; the batch size does not matter."""
    activations: int
    """For the ``images`` of a micro-batch."""
    images: int
    trained: int
    """Number of trained parameters."""
    checkpoint: int
    """Of a checkpoint; the main process keeps a copy of what it writes in main memory."""
    unknown: tuple[str, ...] = ()
    """Components of unknown size."""
    sharded: bool = False
    """Whether several processes have a part of the weights each, instead of a copy."""

    @property
    def total(self) -> int:
        """Weights and activations in one process."""
        return self.needed()

    def needed(self, processes: int = 1, on_one: int = 1, copy: int = 0) -> int:
        """Weights and activations, if several processes share the training.

        Args:
            processes: their number.
            on_one: how many of them share the memory.
            copy: the copy that a checkpoint is written from, if it is in the same memory.
        """
        return sum(self._parts(processes, on_one)) + copy

    def text(self, processes: int = 1, on_one: int = 1, copy: int = 0) -> str:
        """What it needs, in words. Arguments as in :meth:`needed`."""
        weights, activations = self._parts(processes, on_one)
        bound = "at least" if self.unknown else "about"
        copied = f", {gib(copy)} for the copy that a checkpoint is written from" if copy else ""
        several = f" for {on_one} processes" if on_one > 1 else ""
        total = gib(weights + activations + copy)
        return (
            f"stage {self.stage} needs {bound} {total} of memory{several}: "
            f"{gib(weights)} for weights and optimizer, {gib(activations)} for "
            f"{on_one * self._images(processes)} images at a time{copied} (estimate, right "
            "within a factor of two)"
        )

    def _parts(self, processes: int, on_one: int) -> tuple[int, int]:
        weights = self.weights // processes if self.sharded else self.weights
        activations = self.activations * self._images(processes) // self.images
        return on_one * weights, on_one * activations

    def _images(self, processes: int) -> int:
        return -(-self.images // processes)


@dataclass(frozen=True)
class _Network:
    """Number of parameters, and of activations per image kept for the backward pass."""

    name: str
    parameters: int | None
    activations: int | None = 0
    trained: bool = True


def training_memory(recipe: Recipe, num_classes: int | None = None) -> list[StageMemory]:
    """An estimate for each stage that trains and has a rule in ``_RULES``, in the order they run.

    Args:
        recipe: the recipe.
        num_classes: classes of the training images; None: that of the recipe, else ``CLASSES``.
    """
    classes = num_classes or known_classes(recipe) or CLASSES
    return [
        _estimate(STAGES[name], train, _RULES[name](recipe, classes))
        for name, train in trainings(recipe).items()
        if name in _RULES
    ]


def _estimate(stage: Stage, train: TrainSettings, networks: list[_Network]) -> StageMemory:
    half = train.precision == "bf16"
    averages = train.averages
    # weight, gradient, two moments; averages; autocast's copy for the backward pass
    per_weight = 4 * (4 + averages) + (2 if half else 0)
    weights = numbers = 0.0
    for network in networks:
        weights += (network.parameters or 0) * (per_weight if network.trained else 4)
        kept = network.activations or 0
        # Blocks keep only their input, 1 of 16 numbers; one block at a time keeps all 16.
        numbers += kept / 8 if network.trained and train.activation_checkpointing else kept
    images = train.batch_size // train.accumulate
    trained = sum(network.parameters or 0 for network in networks if network.trained)
    # Of the 16 numbers, autocast keeps the inputs of both norms in float32, the others in bf16.
    per_number = 2.25 if half else 4
    return StageMemory(
        stage.name,
        stage.train_path or (),
        weights=round(weights),
        activations=round(images * numbers * per_number),
        images=images,
        trained=trained,
        sharded=train.parallel == "fsdp",
        checkpoint=(3 + averages) * 4 * trained,  # weights, Adam's moments, the averages
        unknown=tuple(n.name for n in networks if n.parameters is None or n.activations is None),
    )


def _encoder(encoder: EncoderComponent, size: int, trained: bool = False) -> _Network:
    config = encoder.config
    kept = config.activations(size) if trained else 0
    return _Network("encoder", config.parameters(size), kept, trained)


def _pretraining(stage: str, component: EncoderComponent | None, size: int) -> list[_Network]:
    assert component is not None
    config = component.config
    parameters, frozen = config.parameters(size), config.frozen_parameters(size)
    trained = None if parameters is None else parameters - frozen
    return [
        _Network(stage, trained, config.activations(size)),
        _Network("frozen part", frozen, trained=False),
    ]


def _refinement(recipe: Recipe) -> list[_Network]:
    tokenizer, size = recipe.tokenizer_section, recipe.data.image_size
    encoder, settings = tokenizer.encoder.config, tokenizer.refinement
    assert settings is not None
    width, tokens = encoder.token_width(), encoder.token_grid(size) ** 2
    channels = tokenizer.bottleneck.config.latent_channels(width)
    inner = settings.width or width
    blocks = settings.depth * 12 * inner**2
    parameters = blocks + (channels + width) * inner + _projection(width, channels)
    kept = block_activations(blocks, tokens, inner) + 6 * width * tokens
    return [_Network("refinement", parameters, kept), _encoder(tokenizer.encoder, size)]


def _tokenizer(recipe: Recipe) -> list[_Network]:
    tokenizer, size = recipe.tokenizer_section, recipe.data.image_size
    encoder, bottleneck = tokenizer.encoder.config, tokenizer.bottleneck.config
    modulator = tokenizer.modulator.config
    width, grid = encoder.token_width(), encoder.token_grid(size)
    # Each decode that a regularizer backpropagates through keeps as much as the reconstruction.
    decodes = tokenizer.decoder_passes
    kept = tokenizer.decoder.config.activations(grid)
    networks = [
        _Network(
            "modulator", modulator.parameters(encoder, size), modulator.activations(encoder, size)
        ),
        _Network("decoder", _decoder_parameters(recipe), None if kept is None else kept * decodes),
    ]
    if bottleneck.projects:
        channels = bottleneck.latent_channels(width)
        inner = 6 * width * grid**2  # q, k, v, what attention gives, its projection, and the map
        parameters = 2 * _projection(width, channels)
        networks.append(_Network("projection", parameters, inner * (1 + decodes)))
    networks.append(_encoder(tokenizer.encoder, size, tokenizer.train_encoder))
    if tokenizer.teacher is not None:
        networks.append(_encoder(tokenizer.teacher, size))
    for name, term in tokenizer.reconstruction.active_terms.items():
        kept = term.activations(encoder, size)
        kept = None if kept is None else kept * decodes
        networks.append(_Network(name, term.parameters(), kept, trained=False))
    if (adversarial := tokenizer.active_adversarial) is not None:
        parameters_ = adversarial.discriminator.config.parameters(size)
        networks.append(_Network("discriminator", parameters_, None))
    return networks


def _generator(recipe: Recipe, num_classes: int) -> list[_Network]:
    assert recipe.generator is not None
    generator, latent = recipe.generator.config, latent_shape(recipe)
    parameters = generator.parameters(latent, num_classes)
    networks = [_Network("generator", parameters, generator.activations(latent))]
    if not recipe.latents.stored:
        networks += _loaded_tokenizer(recipe)
    return networks


def _loaded_tokenizer(recipe: Recipe) -> list[_Network]:
    """A tokenizer that encodes, without gradients."""
    tokenizer, size = recipe.tokenizer, recipe.data.image_size
    if isinstance(tokenizer, TokenizerComponent):
        return [_Network("tokenizer", None, trained=False)]
    encoder, modulator = tokenizer.encoder.config, tokenizer.modulator.config
    return [
        _encoder(tokenizer.encoder, size),
        _Network("modulator", modulator.parameters(encoder, size), trained=False),
        _Network("decoder", _decoder_parameters(recipe), trained=False),
    ]


def _decoder_parameters(recipe: Recipe) -> int | None:
    tokenizer = recipe.tokenizer_section
    encoder = tokenizer.encoder.config
    width = tokenizer.bottleneck.config.decoder_width(encoder.token_width())
    return tokenizer.decoder.config.parameters(width, encoder.token_grid(recipe.data.image_size))


def _projection(width: int, channels: int) -> int:
    """An attention and a 3 x 3 convolution between D and the latents' channels."""
    return 4 * width**2 + 9 * width * channels


_RULES: dict[str, Callable[[Recipe, int], list[_Network]]] = {
    "extractor": lambda recipe, _: _pretraining(
        "extractor", recipe.extractor, recipe.data.image_size
    ),
    "encoder": lambda recipe, _: _pretraining(
        "encoder", recipe.tokenizer_section.encoder, recipe.data.image_size
    ),
    "teacher": lambda recipe, _: _pretraining(
        "teacher", recipe.tokenizer_section.teacher, recipe.data.image_size
    ),
    "refine": lambda recipe, _: _refinement(recipe),
    "tokenizer": lambda recipe, _: _tokenizer(recipe),
    "generator": _generator,
}
"""By stage: the networks in memory during its training, from recipe and number of classes."""
