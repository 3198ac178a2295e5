"""The contract of tokenizers that are one component."""

from __future__ import annotations

from pae_framework.config import TokenizerConfig
from pae_framework.contracts import Tokenizer
from pae_framework.promises import posterior_problem, tensor_problem
from pae_framework.testing.expect import expect, expect_none
from pae_framework.testing.modules import expect_per_image
from pae_framework.testing.synthetic import normal, synthetic_images


def check_tokenizer(tokenizer: Tokenizer, config: TokenizerConfig, side: int) -> None:
    """Check a tokenizer that was built as ``Tokenizer(config, side)``.

    Latents have the shape that its config gives, images the size they came from. Each image is
    encoded and decoded by itself, without randomness.

    Raises:
        AssertionError: the component breaks the contract; the message says how.
    """
    expect(isinstance(tokenizer, Tokenizer), f"{tokenizer!r} is no contracts.Tokenizer")
    promised = config.latent_shape(side)
    expect(
        tokenizer.latent == promised,
        f"latent is {tokenizer.latent}, but config.latent_shape({side}) gives {promised}",
    )
    shape = (3, promised.channels, promised.side, promised.side)
    tokenizer.eval().requires_grad_(False)
    if config.encodes:
        images = synthetic_images(3, side)
        expect_none(posterior_problem(tokenizer.encode(images), shape))
        expect_per_image(lambda x: tokenizer.encode(x).latents, images, what="the latents")
    if config.decodes:
        latents = normal(*shape, seed=0)
        decoded = tokenizer.decode(latents)
        expect_none(tensor_problem(decoded, (3, 3, side, side), "the images", dtype=None))
        expect_per_image(tokenizer.decode, latents, what="the images")
