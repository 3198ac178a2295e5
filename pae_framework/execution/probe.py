"""A small forward pass of each component of a plugin, before a stage uses it.

Without it, a component that breaks its contract fails deep in the engine, or silently gives wrong
results. Built-in components are not probed: the project's tests check them. A probe costs a few
forward passes of two images, and leaves the component and all random states as they were. All
functions raise PluginError, which names the plugin, the component, and the promise that it breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pae_framework import seeding
from pae_framework.config import BottleneckConfig, LatentShape
from pae_framework.contracts import (
    Bottleneck,
    DataSource,
    Decoder,
    Discriminator,
    Encoder,
    Generator,
    Modulator,
    Tokenizer,
)
from pae_framework.errors import CheckpointError, DataError, PaeError, PluginError
from pae_framework.plugin_code import describe
from pae_framework.promises import (
    attributes_problem,
    class_names_problem,
    difference_problem,
    features_problem,
    first,
    item_problem,
    map_order_problem,
    metrics_problem,
    pixels_problem,
    posterior_problem,
    rows_problem,
    tensor_problem,
    token_map_problem,
    token_order_problem,
)
from pae_framework.recipe.components import Component, TokenizerComponent
from pae_framework.recipe.models import TokenizerSection
from pae_framework.registry import ComponentSpec, Registry
from pae_framework.tokenizer.model import ComposedTokenizer

IMAGES = 2
TOLERANCE = 0.01
"""Largest difference, of the largest value, between two computations of the same: kernels of a GPU
may differ between batch sizes."""

LARGE_PIXELS = 5.0
"""Largest mean absolute value of decoded images that can be noise about [0, 1]."""


def probe_encoder(encoder: Encoder, component: Component, registry: Registry) -> None:
    """Tokens and pooled features of two images, one by one and together."""

    def problem() -> str | None:
        if found := attributes_problem(encoder):
            return found
        images = _random((IMAGES, 3, encoder.image_size, encoder.image_size), encoder).sigmoid()
        pixels = encoder.normalize(images)

        def tokens(x: Tensor) -> Tensor:
            return encoder(x).tokens

        return (
            pixels_problem(encoder, pixels, IMAGES)
            or features_problem(encoder, encoder(pixels), IMAGES)
            or _function_problem(tokens, (pixels,), "the tokens")
            or token_order_problem(encoder, pixels[:1])
        )

    _probe(registry.find("encoder", component.use), encoder, problem)


def probe_tokenizer(
    tokenizer: ComposedTokenizer, section: TokenizerSection, registry: Registry
) -> None:
    """The modulator, the bottleneck and the decoder, each by itself."""
    encoder = tokenizer.encoder
    modulator, bottleneck = tokenizer.delta_encoder, tokenizer.bottleneck
    _probe(
        registry.find("modulator", section.modulator.use),
        modulator,
        lambda: _modulator(modulator, encoder),
    )
    _probe(
        registry.find("bottleneck", section.bottleneck.use),
        bottleneck,
        lambda: _bottleneck(bottleneck, section.bottleneck.config, encoder),
    )
    _probe(
        registry.find("decoder", section.decoder.use),
        tokenizer.decoder,
        lambda: _decoder(
            tokenizer.decoder, encoder, section.bottleneck.config.decoder_width(encoder.width)
        ),
    )


def probe_tokenizer_component(
    tokenizer: Tokenizer, component: TokenizerComponent, image_size: int, registry: Registry
) -> None:
    """Latents of two images and images of two latents, as far as it encodes and decodes.

    A built-in one is probed, too: its networks may be files of others.

    Raises:
        CheckpointError: the file of a built-in one fails, or gives other shapes than the recipe
            states.
    """
    spec = registry.find("tokenizer", component.use)

    def problem() -> str | None:
        shape = tokenizer.latent
        if shape != (promised := component.latent_shape(image_size)):
            return f"config.latent_shape gives {promised}, but latent is {shape}"
        latents = (IMAGES, shape.channels, shape.side, shape.side)
        images = (IMAGES, 3, image_size, image_size)
        return first(
            _encodes(tokenizer, images, latents) if component.encodes else None,
            _decodes(tokenizer, latents, images) if component.decodes else None,
            _range_problem(tokenizer, component, images, latents) if component.decodes else None,
        )

    if not spec.built_in:
        _probe(spec, tokenizer, problem)
        return
    try:
        with torch.no_grad(), seeding.random_states_kept():
            found = problem()
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"tokenizer {component.use!r} fails: {describe(error)}") from error
    if found is not None:
        raise CheckpointError(f"tokenizer {component.use!r} does not fit the recipe: {found}")


def probe_generator(
    generator: Generator, component: Component, latent: LatentShape, registry: Registry
) -> None:
    """The velocity of two latents, at both ends of time, of a class and of the null label."""

    def problem() -> str | None:
        shape = (IMAGES, latent.channels, latent.side, latent.side)
        x = _random(shape, generator)
        t = torch.tensor([0.0, 1.0], device=x.device)
        y = torch.tensor([0, generator.num_classes], device=x.device)

        def velocity(x: Tensor) -> Tensor:
            return generator(x, t[:1].expand(len(x)), y[:1].expand(len(x)))

        return (
            tensor_problem(generator(x, t, y), shape, "the velocity", dtype=None)
            or _function_problem(generator, (x, t, y), "the velocity")
            or map_order_problem(velocity, x[:1], latent.side, "the velocities")
        )

    _probe(registry.find("generator", component.use), generator, problem)


def probe_discriminator(
    discriminator: Discriminator, component: Component, image_size: int, registry: Registry
) -> None:
    """Logits of two images."""

    def problem() -> str | None:
        images = _random((IMAGES, 3, image_size, image_size), discriminator).sigmoid()
        logits = discriminator(images)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            return f"the logits are {_words(logits)}, expected (B, M)"
        return tensor_problem(logits, (IMAGES, logits.shape[1]), "the logits", dtype=None)

    _probe(registry.find("discriminator", component.use), discriminator, problem)


def probe_source(source: DataSource, component: Component, registry: Registry) -> None:
    """Class names, the first and the last image; images that cannot be read are left out."""

    def problem() -> str | None:
        names, count = source.class_names, len(source)
        if found := class_names_problem(names, source.config.class_count()):
            return found
        if count <= 0:
            return "it holds no image"
        for index in (0, count - 1):
            try:
                item = source[index]
            except DataError:  # its reader reports it, and may skip it
                continue
            if found := item_problem(item, source.image_size, len(names), f"source[{index}]"):
                return found
        return None

    _probe(registry.find("dataset", component.use), None, problem)


def require_metrics(metrics: object, component: Component, registry: Registry) -> None:
    """The metrics that an evaluator gave."""
    _report(registry.find("evaluator", component.use), metrics_problem(metrics))


# --- parts of a tokenizer -------------------------------------------------------------------------


def _modulator(modulator: Modulator, encoder: Encoder) -> str | None:
    shape = (IMAGES, encoder.grid**2, encoder.width)
    side = encoder.grid * encoder.patch
    pixels, tokens = _random((IMAGES, 3, side, side), encoder), _random(shape, encoder)
    return (
        tensor_problem(modulator(pixels, tokens), shape, "the modulated tokens")
        or _function_problem(modulator, (pixels, tokens), "the modulated tokens")
        or token_map_problem(modulator, pixels[:1], tokens[:1], encoder.grid)
    )


def _bottleneck(bottleneck: Bottleneck, config: BottleneckConfig, encoder: Encoder) -> str | None:
    promised, grid = config.latent_channels(encoder.width), encoder.grid
    if bottleneck.channels != promised:
        return f"config.latent_channels gives {promised}, but channels is {bottleneck.channels}"
    shape = (IMAGES, promised, grid, grid)
    x = _random((IMAGES, bottleneck.in_channels, grid, grid), encoder)
    posterior = bottleneck(x, None)
    if problem := posterior_problem(posterior, shape):
        return problem

    def latents(x: Tensor) -> Tensor:
        return bottleneck(x, None).latents

    return (
        tensor_problem(bottleneck.invert(posterior.latents), shape, "the output of invert", None)
        or _function_problem(latents, (x,), "the latents")
        or map_order_problem(latents, x[:1], grid, "the latents")
    )


def _decoder(decoder: Decoder, encoder: Encoder, width: int) -> str | None:
    grid, size = encoder.grid, encoder.image_size
    tokens = _random((IMAGES, grid**2, width), decoder)
    last = decoder.last_layer()
    if not any(last is parameter for parameter in decoder.parameters()):
        return "last_layer must give a weight of the decoder"
    return (
        tensor_problem(decoder(tokens), (IMAGES, 3, size, size), "the pixels", dtype=None)
        or _function_problem(decoder, (tokens,), "the pixels")
        or map_order_problem(decoder, tokens[:1], grid, "the pixels")
    )


# --- a tokenizer as a whole -----------------------------------------------------------------------


def _encodes(tokenizer: Tokenizer, images: tuple[int, ...], latents: tuple[int, ...]) -> str | None:
    pixels = _random(images, tokenizer).sigmoid()

    def encode(x: Tensor) -> Tensor:
        return tokenizer.encode(x).latents

    return posterior_problem(tokenizer.encode(pixels), latents) or _function_problem(
        encode, (pixels,), "the latents"
    )


def _decodes(tokenizer: Tokenizer, latents: tuple[int, ...], images: tuple[int, ...]) -> str | None:
    z = _random(latents, tokenizer)
    return tensor_problem(tokenizer.decode(z), images, "the images", dtype=None) or (
        _function_problem(tokenizer.decode, (z,), "the images")
    )


def _range_problem(
    tokenizer: Tokenizer,
    component: TokenizerComponent,
    images: tuple[int, ...],
    latents: tuple[int, ...],
) -> str | None:
    """Decoded images must be in about [0, 1], not in [0, 255]."""
    if component.encodes:
        z = tokenizer.encode(_random(images, tokenizer).sigmoid()).latents
    else:
        z = _random(latents, tokenizer)
    found = tokenizer.decode(z)
    if found.abs().mean().item() <= LARGE_PIXELS:
        return None
    low, high = found.min().item(), found.max().item()
    return f"the images are in [{low:.3g}, {high:.3g}], expected about [0, 1]"


# --- how ------------------------------------------------------------------------------------------


def _function_problem(
    compute: Callable[..., Tensor], inputs: tuple[Tensor, ...], what: str
) -> str | None:
    """The same input must give the same output, in any batch."""
    again = f"{what} must be the same for the same input; use no randomness"
    return first(
        difference_problem(compute(*inputs), compute(*inputs), TOLERANCE, again),
        rows_problem(compute, inputs, what, TOLERANCE),
    )


def _probe(
    spec: ComponentSpec, module: nn.Module | None, problem: Callable[[], str | None]
) -> None:
    if spec.built_in:
        return
    try:
        with torch.no_grad(), seeding.random_states_kept(), _evaluating(module):
            found = problem()
    except (PaeError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise PluginError(f"{_named(spec)} fails: {describe(error)}") from error
    _report(spec, found)


def _report(spec: ComponentSpec, problem: str | None) -> None:
    if problem is not None:
        raise PluginError(f"{_named(spec)} breaks its contract: {problem}")


def _named(spec: ComponentSpec) -> str:
    return f"{spec.origin}: {spec.reference} ({spec.target})"


@contextmanager
def _evaluating(module: nn.Module | None) -> Iterator[None]:
    """Inside the block, the module is in eval mode."""
    modes = {} if module is None else {part: part.training for part in module.modules()}
    for part in modes:
        part.training = False
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def _random(shape: tuple[int, ...], module: nn.Module) -> Tensor:
    """Normal numbers, the same at each probe, on the device of a module."""
    weight = next(iter((*module.parameters(), *module.buffers())), torch.empty(0))
    random = torch.randn(shape, generator=seeding.generator("probe"))
    return random.to(weight.device)


def _words(found: object) -> str:
    return str(tuple(found.shape)) if isinstance(found, Tensor) else f"a {type(found).__name__}"
