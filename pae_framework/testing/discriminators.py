"""The contract of discriminators."""

from __future__ import annotations

import torch
from torch import Tensor

from pae_framework.config import DiscriminatorConfig
from pae_framework.contracts import Discriminator
from pae_framework.frozen import UsesFrozen
from pae_framework.testing.expect import expect, expect_tensor, global_randomness_untouched
from pae_framework.testing.modules import (
    as_if_trained,
    expect_bf16,
    expect_gradients,
    expect_repeatable,
    expect_rows_apart,
)
from pae_framework.testing.state import expect_state
from pae_framework.testing.synthetic import draw, synthetic_images


def check_discriminator(
    discriminator: Discriminator, config: DiscriminatorConfig, image_size: int
) -> None:
    """Check a discriminator that was built as ``Discriminator(config, image_size)``.

    Images to logits (B, M), through which gradients reach the images; in eval mode each image for
    itself, and nothing it knows changes; augmentation draws from the generator it is given only.

    Raises:
        AssertionError: says what the contract is and what was found.
    """
    expect(
        isinstance(discriminator, Discriminator),
        f"{discriminator!r} is no contracts.Discriminator",
    )
    moved = as_if_trained(discriminator).train()
    images = synthetic_images(3, image_size)
    logits = moved(images)
    expect(logits.ndim == 2, f"logits have the shape {tuple(logits.shape)}, expected (B, M)")
    expect_tensor(logits, (3, logits.shape[1]), "logits", dtype=None)
    expect_gradients(logits, moved, "the discriminator")
    _check_augmentation(moved, images)

    moved.eval()
    known = {name: value.clone() for name, value in moved.state_dict().items()}
    expect_repeatable(lambda: moved(images), "the discriminator in eval mode")
    expect_rows_apart(moved, images, what="in eval mode, the logits")
    expect_bf16(lambda: moved(images), "the discriminator")
    same = all(torch.equal(value, known[name]) for name, value in moved.state_dict().items())
    expect(same, "the discriminator changes in eval mode; it must only judge there")
    _check_gradient_to_images(moved, images)
    expect_state(moved, lambda: _another(moved, config, image_size), lambda module: module(images))


def _check_augmentation(discriminator: Discriminator, images: Tensor) -> None:
    generator = torch.Generator().manual_seed(3)
    with global_randomness_untouched("augment"):
        first = discriminator.augment(images, generator)
        again = discriminator.augment(images, generator.manual_seed(3))
    expect_tensor(first, tuple(images.shape), "augmented images")
    expect(torch.equal(first, again), "augment draws from more than the generator it is given")


def _check_gradient_to_images(discriminator: Discriminator, images: Tensor) -> None:
    """The tokenizer learns through the discriminator."""
    leaf = images.clone().requires_grad_()
    augmented = discriminator.augment(leaf, torch.Generator().manual_seed(3))
    logits = discriminator(augmented)
    (logits * draw(*logits.shape, seed=1)).sum().backward()
    expect(
        leaf.grad is not None and bool(leaf.grad.isfinite().all()) and bool(leaf.grad.any()),
        "no gradient reaches the images through augment and the discriminator",
    )


def _another(one: Discriminator, config: DiscriminatorConfig, image_size: int) -> Discriminator:
    """A new one around the same frozen networks, which no state dict holds."""
    fresh = type(one)(config, image_size)
    if isinstance(one, UsesFrozen) and isinstance(fresh, UsesFrozen):
        for name, module in one.frozen_modules().items():
            fresh.hold_frozen(name, module)
    return fresh
