"""The tokenizer: pixels <-> latents, put together from its parts.

The way of an image: encoder (frozen) -> modulator -> projector -> bottleneck -> latents ->
deprojector -> decoder. Legend: B batch, N tokens, D width, C latent channels, S image side in px.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pae_framework.config import LatentShape
from pae_framework.contracts import (
    Bottleneck,
    Decoder,
    Encoder,
    Features,
    Modulator,
    Posterior,
)
from pae_framework.errors import UsageError
from pae_framework.frozen import UsesFrozen
from pae_framework.layers import map_to_tokens, tokens_to_map
from pae_framework.plugins import Registry
from pae_framework.recipe.models import TokenizerSection
from pae_framework.tokenizer.projection import Deprojector, Projector


class Tokenizer(UsesFrozen):
    """Encoder, modulator, bottleneck and decoder as one.

    The state dict has the layout of the released PAE checkpoints without their ``encoder.`` keys:
    ``delta_encoder.``, ``latent_compressor.``, ``latent_decompressor.``, ``decoder.``; a bottleneck
    with statistics adds ``bottleneck.``. The encoder is frozen and stays outside (see UsesFrozen).

    Args:
        encoder: gets frozen.
        modulator: adds pixel detail to its tokens.
        bottleneck: makes latents; where it is ``projected``, a projector and a deprojector with the
            encoder's number of heads are put around it.
        decoder: makes pixels of tokens.
    """

    encoder: Encoder

    def __init__(
        self, encoder: Encoder, modulator: Modulator, bottleneck: Bottleneck, decoder: Decoder
    ):
        super().__init__()
        self.latent = LatentShape(bottleneck.channels, encoder.grid)
        self.hold_frozen("encoder", encoder)
        self.delta_encoder = modulator
        self.bottleneck = bottleneck
        self.latent_compressor: Projector | None = None
        self.latent_decompressor: Deprojector | None = None
        if bottleneck.projected:
            width, heads = encoder.width, encoder.heads
            self.latent_compressor = Projector(width, heads, bottleneck.in_channels)
            self.latent_decompressor = Deprojector(bottleneck.channels, width, heads)
        self.decoder = decoder

    def features(self, images: Tensor) -> Features:
        """What the frozen encoder sees in images (B, 3, S, S) in [0, 1]; without gradient."""
        return self.features_of_pixels(self.encoder.normalize(images))

    @torch.no_grad()
    def features_of_pixels(self, pixels: Tensor) -> Features:
        """The same for pixels that are normalised already."""
        return self.encoder(pixels)

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Posterior:
        """Latents (B, C, h, w) of images (B, 3, S, S) in [0, 1].

        With a generator a random bottleneck draws; without one, its mean is taken.
        """
        pixels = self.encoder.normalize(images)
        return self.encode_features(pixels, self.features_of_pixels(pixels).tokens, generator)

    def encode_features(
        self, pixels: Tensor, tokens: Tensor, generator: torch.Generator | None = None
    ) -> Posterior:
        """Latents of normalised pixels (B, 3, S', S') and their frozen tokens (B, N, D)."""
        return self.bottleneck(self._bottleneck_input(pixels, tokens), generator)

    def decode(
        self, latents: Tensor, tau: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Images (B, 3, S, S), float32, in about [0, 1], not clamped, of latents (B, C, h, w).

        With a ``tau`` and a generator, of a noisy version of what the decoder side takes.
        """
        x = self.bottleneck.invert(latents)
        if tau:
            assert generator is not None
            x = noisy(x, tau, generator)
        decompress = self.latent_decompressor
        tokens = map_to_tokens(x) if decompress is None else decompress(x)
        return self.encoder.denormalize(self.decoder(tokens).float())

    def layer_before_latents(self) -> nn.Parameter:
        """The weight whose gradients balance adaptive regularizers: of the projector's convolution.

        Raises:
            UsageError: the bottleneck does without a projector.
        """
        if self.latent_compressor is None:
            raise UsageError(
                "tokenizer.bottleneck: an adaptive regularizer is balanced at the projector, which "
                "this bottleneck does without; use another, such as `sphere` or `gaussian`"
            )
        weight = self.latent_compressor[1].weight
        assert isinstance(weight, nn.Parameter)
        return weight

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """Give the bottleneck the statistics of image batches (B, 3, S, S) it asks for."""
        self.bottleneck.measure(
            self._bottleneck_input(pixels, self.encoder(pixels).tokens)
            for pixels in map(self.encoder.normalize, batches)
        )

    def _bottleneck_input(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        tokens = self.delta_encoder(pixels, tokens)
        compress = self.latent_compressor
        return tokens_to_map(tokens) if compress is None else compress(tokens)


def noisy(x: Tensor, tau: float, generator: torch.Generator) -> Tensor:
    """x (B, C, h, w) + sigma N(0, 1) with one sigma ~ U(0, tau) per image (RAE, arXiv 2510.11690).

    A decoder that learns from it forgives latents that are a little off. RAE adds it to the
    encoder's features before they are standardised.
    """
    sigma = tau * torch.rand(len(x), 1, 1, 1, generator=generator, device=generator.device)
    noise = torch.randn(x.shape, generator=generator, device=generator.device)
    return x + (sigma * noise).to(x)


def build_tokenizer(
    section: TokenizerSection, image_size: int, registry: Registry, encoder: Encoder
) -> Tokenizer:
    """Build the tokenizer a recipe describes around an encoder that exists already.

    Initial weights are drawn from torch's default generator.

    Args:
        section: the recipe's ``tokenizer``.
        image_size: S, side of the images in px.
        registry: where components are looked up.
        encoder: built and loaded by the caller.

    Raises:
        UsageError: the decoder makes images of another size.
        PluginError: a component does not import.
    """
    size = section.decoder.config.image_size(encoder.grid)
    if size != image_size:
        raise UsageError(
            f"tokenizer.decoder: {section.decoder.use} makes images of {size} px from the "
            f"encoder's {encoder.grid} x {encoder.grid} tokens, but data.image_size is {image_size}"
        )
    modulator, bottleneck, decoder = (
        registry.find(part.kind, part.use).component_class()
        for part in (section.modulator, section.bottleneck, section.decoder)
    )
    return Tokenizer(
        encoder,
        modulator(section.modulator.config, encoder),
        bottleneck(section.bottleneck.config, encoder.width, encoder.grid),
        decoder(section.decoder.config, encoder.width, encoder.grid),
    )
