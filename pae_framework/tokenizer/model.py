"""The composed tokenizer: images to latents and back.

Data flow: encoder -> modulator -> projector -> bottleneck -> latents -> deprojector ->
decoder. The projector and deprojector (PAE, section 3) are Sequentials, so their sub-modules have
the names of the released checkpoints: ``latent_compressor.0`` is the attention and ``.1`` the
convolution; ``latent_decompressor`` has the reverse order.

Legend: B batch, N tokens, D encoder width, d bottleneck input channels, C latent channels, g = h =
w token grid side, S image side in px, S' side of the encoder's input.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor, nn

from pae_framework.config import AttentionKernel, LatentShape
from pae_framework.contracts import (
    Bottleneck,
    Decoder,
    Encoder,
    Features,
    Modulator,
    Posterior,
    Tokenizer,
)
from pae_framework.frozen import UsesFrozen
from pae_framework.layers import Attention, map_to_tokens, tokens_to_map
from pae_framework.seeding import on_device, rand, randn
from pae_framework.tokenizer.trained_encoder import freeze_unused_weights


class ComposedTokenizer(UsesFrozen, Tokenizer):
    """Encoder, modulator, bottleneck and decoder as one.

    The state dict has the layout of the released PAE checkpoints without their ``encoder.`` keys:
    ``delta_encoder.``, ``latent_compressor.``, ``latent_decompressor.``, ``decoder.``; a bottleneck
    with statistics adds ``bottleneck.``. A frozen encoder stays outside (see UsesFrozen); a trained
    one adds ``encoder.``.

    Args:
        encoder: gets frozen, unless it is trained.
        modulator: adds pixel detail to the encoder's tokens.
        bottleneck: turns tokens into latents. If it is ``projected``, a projector precedes and a
            deprojector follows it, with the encoder's number of heads.
        decoder: turns tokens into pixels.
        train_encoder: whether the encoder is trained, too. It stays in eval mode, so dropout and
            the like are off. The first call of :meth:`train` freezes the weights that its tokens do
            not depend on, such as a pooling head.
        kernel: attention kernel of projector and deprojector.
    """

    encoder: Encoder

    def __init__(
        self,
        encoder: Encoder,
        modulator: Modulator,
        bottleneck: Bottleneck,
        decoder: Decoder,
        train_encoder: bool = False,
        kernel: AttentionKernel = "sdpa",
    ):
        super().__init__()
        self.latent = LatentShape(bottleneck.channels, encoder.grid)
        self.trains_encoder, self._unused_frozen = train_encoder, False
        if train_encoder:
            self.encoder = encoder.eval().requires_grad_()
        else:
            self.hold_frozen("encoder", encoder)
        self.delta_encoder = modulator
        self.bottleneck = bottleneck
        self.latent_compressor: Projector | None = None
        self.latent_decompressor: Deprojector | None = None
        if bottleneck.projected:
            width, heads = encoder.width, encoder.heads
            self.latent_compressor = Projector(width, heads, bottleneck.in_channels, kernel)
            self.latent_decompressor = Deprojector(bottleneck.channels, width, heads, kernel)
        self.decoder = decoder

    def train(self, mode: bool = True) -> Self:
        """Set the mode; the encoder stays in eval mode.

        Raises:
            UsageError: the encoder is to be trained, but gradients do not pass through it.
        """
        super().train(mode)
        self.encoder.eval()
        if mode and self.trains_encoder and not self._unused_frozen:
            freeze_unused_weights(self.encoder, "set tokenizer.train_encoder=false")
            self._unused_frozen = True
        return self

    def features(self, images: Tensor) -> Features:
        """The encoder's features of images (B, 3, S, S) in [0, 1].

        With gradients only if the encoder is trained.
        """
        return self.features_of_pixels(self.encoder.normalize(images))

    def features_of_pixels(self, pixels: Tensor) -> Features:
        """The same for normalized pixels (B, 3, S', S')."""
        with torch.set_grad_enabled(self.trains_encoder and torch.is_grad_enabled()):
            return self.encoder(pixels)

    def encode(
        self,
        images: Tensor,
        generator: torch.Generator | None = None,
        tokens: Tensor | None = None,
    ) -> Posterior:
        """Latents (B, C, h, w) of images (B, 3, S, S) in [0, 1].

        A random bottleneck samples with the generator; without one, it returns its mean.

        Args:
            images: a batch.
            generator: see above.
            tokens: the encoder's tokens (B, N, D) of the images; None: they are computed.
        """
        pixels = self.encoder.normalize(images)
        if tokens is None:
            tokens = self.features_of_pixels(pixels).tokens
        return self.encode_features(pixels, tokens, generator)

    def encode_features(
        self, pixels: Tensor, tokens: Tensor, generator: torch.Generator | None = None
    ) -> Posterior:
        """Latents of normalized pixels (B, 3, S', S') and their tokens (B, N, D)."""
        return self.bottleneck(self._bottleneck_input(pixels, tokens), generator)

    def decode(
        self, latents: Tensor, tau: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Images (B, 3, S, S) of latents (B, C, h, w): float32, nominally in [0, 1], not clamped.

        With ``tau``, noise from the generator is added to the input of the deprojector.
        """
        x = self.bottleneck.invert(latents)  # (B, C, h, w)
        if tau:
            assert generator is not None
            x = noisy(x, tau, generator)
        decompress = self.latent_decompressor
        tokens = map_to_tokens(x) if decompress is None else decompress(x)  # (B, N, D)
        return self.encoder.denormalize(self.decoder(tokens).float())

    def layer_before_latents(self) -> nn.Parameter | None:
        """The weight of the projector's convolution, else of a trained encoder's last layer.

        None if there is neither.
        """
        if self.latent_compressor is None:
            return self.encoder.last_layer() if self.trains_encoder else None
        weight = self.latent_compressor[1].weight
        assert isinstance(weight, nn.Parameter)
        return weight

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """Measure the bottleneck's statistics on image batches (B, 3, S, S) in [0, 1]."""
        self.bottleneck.measure(
            self._bottleneck_input(pixels, self.encoder(pixels).tokens)
            for pixels in map(self.encoder.normalize, batches)
        )

    def _bottleneck_input(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        tokens = self.delta_encoder(pixels, tokens)  # (B, N, D)
        compress = self.latent_compressor
        return tokens_to_map(tokens) if compress is None else compress(tokens)


def noisy(x: Tensor, tau: float, generator: torch.Generator) -> Tensor:
    """x (B, C, h, w) + sigma N(0, 1) with one sigma ~ U(0, tau) per image (RAE, arXiv 2510.11690).

    It makes the decoder tolerate small errors in the latents. RAE adds it to the encoder's features
    before they are standardized.
    """
    sigma = tau * rand((len(x), 1, 1, 1), generator)
    noise = randn(x.shape, generator)
    return x + on_device(sigma * noise, x.device).to(x.dtype)


class Projector(nn.Sequential):
    """One attention, then a 3x3 convolution. No residual, pre-norm or position code (as released).

    Args:
        width: D of the tokens.
        heads: attention heads.
        channels: d of the map.
        kernel: attention kernel.
    """

    def __init__(self, width: int, heads: int, channels: int, kernel: AttentionKernel = "sdpa"):
        super().__init__(
            Attention(width, heads, qkv_bias=False, kernel=kernel),
            nn.Conv2d(width, channels, kernel_size=3, padding=1),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) to (B, d, g, g)."""
        attention, convolution = self
        return convolution(tokens_to_map(attention(tokens)))


class Deprojector(nn.Sequential):
    """A 3x3 convolution, then one attention: the projector in reverse order.

    Args:
        channels: d of the map.
        width: D of the tokens.
        heads: attention heads.
        kernel: attention kernel.
    """

    def __init__(self, channels: int, width: int, heads: int, kernel: AttentionKernel = "sdpa"):
        super().__init__(
            nn.Conv2d(channels, width, kernel_size=3, padding=1),
            Attention(width, heads, qkv_bias=False, kernel=kernel),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, d, g, g) to (B, N, D)."""
        convolution, attention = self
        return attention(map_to_tokens(convolution(x)))
