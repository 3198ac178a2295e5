"""Checks of image size, token grid, widths, heads and latent shape. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from pae_framework.config import DecoderConfig, GeneratorConfig, LatentShape, RegularizerConfig
from pae_framework.errors import Inconsistency
from pae_framework.recipe.components import ExtractorComponent
from pae_framework.recipe.models import Recipe, TokenizerSection
from pae_framework.recipe.nodes import KeyPath, dotted


def _check_extractor(extractor: ExtractorComponent, size: int) -> Iterator[Inconsistency]:
    """It takes images of this size and offers the pooling; only a pretrained one resizes."""
    try:
        extractor.config.token_grid(extractor.image_size(size))
    except ValueError as error:
        yield Inconsistency(("extractor",), str(error))
    offered = extractor.config.poolings()
    if extractor.pooling not in offered:
        message = f"{extractor.use!r} does not pool features by {extractor.pooling!r}"
        hint = f"set extractor.pool to one of: {', '.join(offered)}"
        yield Inconsistency(("extractor", "pool"), message, hint)
    if extractor.resize is not None and extractor.train is not None:
        message = f"{extractor.use!r} is trained on images of the recipe's size"
        yield Inconsistency(("extractor", "resize"), message, "set extractor.resize=null")


def check_shapes(recipe: Recipe) -> Iterator[Inconsistency]:
    """Every component can process the output of the component before it."""
    size = recipe.data.image_size
    if recipe.extractor is not None:
        yield from _check_extractor(recipe.extractor, size)
    if recipe.composed is not None:
        yield from _check_composed(recipe, recipe.composed)
        return
    try:
        latent = recipe.tokenizer.latent_shape(size)
    except ValueError as error:
        yield Inconsistency(("tokenizer",), str(error))
    else:
        yield from _check_latent(recipe, latent)


def _check_composed(recipe: Recipe, tokenizer: TokenizerSection) -> Iterator[Inconsistency]:
    size = recipe.data.image_size
    try:
        grid = tokenizer.encoder.config.token_grid(size)
        width = tokenizer.encoder.config.token_width()
    except ValueError as error:
        yield Inconsistency(("tokenizer", "encoder"), str(error))
        return
    try:
        decoded = tokenizer.decoder.config.image_size(grid)
        if decoded != size:
            yield Inconsistency(
                ("tokenizer", "decoder"),
                f"decodes {grid} x {grid} tokens to {decoded} px, but data.image_size is {size}",
                "set the same patch size for tokenizer.encoder and tokenizer.decoder",
            )
    except ValueError as error:
        yield Inconsistency(("tokenizer", "decoder"), str(error))
    yield from _check_heads(tokenizer, width)
    yield from _check_position_widths(tokenizer, width)
    try:
        channels = tokenizer.bottleneck.config.latent_channels(width)
    except ValueError as error:
        yield Inconsistency(("tokenizer", "bottleneck"), str(error))
        return
    yield from _check_latent(recipe, LatentShape(channels, grid))


def _check_latent(recipe: Recipe, latent: LatentShape) -> Iterator[Inconsistency]:
    configs: list[tuple[KeyPath, DecoderConfig | RegularizerConfig | GeneratorConfig]] = []
    if (composed := recipe.composed) is not None:
        configs.append((("tokenizer", "decoder"), composed.decoder.config))
        configs += [
            (("tokenizer", "regularizers", label), regularizer.config)
            for label, regularizer in composed.active_regularizers.items()
        ]
    if recipe.generator is not None:
        configs.append((("generator",), recipe.generator.config))
    if recipe.guide is not None:
        configs.append((("guide",), recipe.guide.config))
    for path, config in configs:
        try:
            config.check_latent(latent)
        except ValueError as error:
            yield Inconsistency(path, str(error))


def _check_heads(tokenizer: TokenizerSection, width: int) -> Iterator[Inconsistency]:
    """Attention heads divide the width; the default is the number of the encoder."""
    modulator, refinement = tokenizer.modulator.config, tokenizer.refinement
    encoder_heads = tokenizer.encoder.config.token_heads()
    if encoder_heads is not None and width % encoder_heads:
        message = f"{encoder_heads} heads do not divide its width {width}"
        hint = f"set a width that is a multiple of {encoder_heads}"
        yield Inconsistency(("tokenizer", "encoder"), message, hint)
        return
    attending: list[tuple[KeyPath, int | None, int]] = []
    if modulator.attends:
        attending.append((("tokenizer", "modulator", "heads"), modulator.stated_heads(), width))
    if refinement is not None:
        of_width = refinement.width or width
        attending.append((("tokenizer", "refinement", "heads"), refinement.heads, of_width))
    for path, stated, of_width in attending:
        heads = stated or encoder_heads
        if heads is not None and of_width % heads:
            message = f"{heads} heads do not divide the width {of_width}"
            if not stated:
                message = f"the encoder's {heads} heads do not divide the width {of_width}"
            divisor = next(n for n in range(heads, 0, -1) if of_width % n == 0)
            yield Inconsistency(path, message, f"set {dotted(path)}={divisor}")


def _check_position_widths(tokenizer: TokenizerSection, width: int) -> Iterator[Inconsistency]:
    """Sine-cosine position embeddings need a width divisible by 4."""
    if width % 4 == 0:
        return
    message = f"position embeddings need a width divisible by 4, but the encoder's is {width}"
    if tokenizer.modulator.config.attends:
        hint = "set tokenizer.modulator.use=none"
        yield Inconsistency(("tokenizer", "modulator"), message, hint)
    refinement = tokenizer.refinement
    if refinement is not None and refinement.width is None:
        hint = f"set tokenizer.refinement.width={width + 4 - width % 4}"
        yield Inconsistency(("tokenizer", "refinement"), message, hint)
