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
    expect_gradients,
    expect_per_image,
    expect_state,
)
from pae_framework.testing.shared_batch import expect_rows_of_the_batch
from pae_framework.testing.synthetic import normal, synthetic_images


def check_discriminator(
    discriminator: Discriminator, config: DiscriminatorConfig, image_size: int
) -> None:
    """Check a discriminator that was built as ``Discriminator(config, image_size)``.

    It turns images into logits (B, M), through which gradients reach the images. In eval mode it
    judges each image by itself and does not change. Augmentation uses only the generator that is
    passed in, and draws by image.

    Raises:
        AssertionError: the component breaks the contract; the message says how.
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
    before = {name: value.clone() for name, value in moved.state_dict().items()}
    expect_per_image(moved, images, what="the discriminator in eval mode")
    same = all(torch.equal(value, before[name]) for name, value in moved.state_dict().items())
    expect(same, "the discriminator must not change in eval mode")
    _check_gradient_to_images(moved, images)
    expect_state(moved, lambda: _rebuild(moved, config, image_size), lambda module: module(images))


def _check_augmentation(discriminator: Discriminator, images: Tensor) -> None:
    generator = torch.Generator().manual_seed(3)
    with global_randomness_untouched("augment"):
        first = discriminator.augment(images, generator)
        again = discriminator.augment(images, generator.manual_seed(3))
    expect_tensor(first, tuple(images.shape), "augmented images")
    expect(
        torch.equal(first, again),
        "augment must use no randomness but the generator that is passed in",
    )
    expect_rows_of_the_batch(
        lambda rows, generator: discriminator.augment(images[rows.start : rows.stop], generator),
        len(images),
        "the augmentation",
    )


def _check_gradient_to_images(discriminator: Discriminator, images: Tensor) -> None:
    leaf = images.clone().requires_grad_()
    augmented = discriminator.augment(leaf, torch.Generator().manual_seed(3))
    logits = discriminator(augmented)
    (logits * normal(*logits.shape, seed=1)).sum().backward()
    expect(
        leaf.grad is not None and bool(leaf.grad.isfinite().all()) and bool(leaf.grad.any()),
        "no gradient reaches the images through augment and the discriminator",
    )


def _rebuild(
    discriminator: Discriminator, config: DiscriminatorConfig, image_size: int
) -> Discriminator:
    """A new one with the same frozen networks, which are in no state dict."""
    fresh = type(discriminator)(config, image_size)
    if isinstance(discriminator, UsesFrozen) and isinstance(fresh, UsesFrozen):
        for name, module in discriminator.frozen_modules().items():
            fresh.hold_frozen(name, module)
    return fresh
