"""The contract of regularizers."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.config import LatentShape, RegularizerConfig
from pae_framework.contracts import Posterior, Regularizer, RegularizerInputs
from pae_framework.testing.expect import expect, expect_tensor
from pae_framework.testing.modules import expect_bf16, expect_repeatable
from pae_framework.testing.state import expect_state
from pae_framework.testing.synthetic import draw, synthetic_images

IMAGES, GRID, PATCH, WIDTH, CHANNELS = 6, 4, 2, 8, 4


def check_regularizer(regularizer: Regularizer, config: RegularizerConfig) -> None:
    """Check a regularizer that was built as ``Regularizer(config)``.

    Prepared here, it is a finite scalar, a mean over the batch (micro-batches are averaged), that
    sends gradients to the latents or to the decoder, changes none of its inputs, draws all
    randomness from ``inputs.generator`` and asks only for what its config says it needs.

    Raises:
        AssertionError: says what the contract is and what was found.
    """
    expect(isinstance(regularizer, Regularizer), f"{regularizer!r} is no contracts.Regularizer")

    _prepare(regularizer, config)

    def term(copies: int = 1, module: nn.Module = regularizer) -> Tensor:
        found: Tensor = module(made_up_inputs(config, copies)[0])
        return found

    _check_needs(regularizer, config)
    _check_one_step(regularizer, config)
    value = expect_repeatable(term, "the term")
    expect_bf16(term, "the term")
    with torch.no_grad():
        twice = term(copies=2)
    expect(
        (twice - value).abs().item() <= 0.5 * value.abs().item(),
        f"the term of a batch is {value.item():.4g}, of the same images twice {twice.item():.4g}; "
        "take the mean over images: micro-batches (`accumulate`) are averaged",
    )
    expect_state(
        regularizer,
        lambda: _prepare(type(regularizer)(config), config),
        lambda module: term(module=module),
    )


def _prepare(regularizer: Regularizer, config: RegularizerConfig) -> Regularizer:
    """What the engine does before training, with the shapes of the made-up step."""
    target_channels = CHANNELS if type(config).needs_target else None
    regularizer.prepare(LatentShape(CHANNELS, GRID), WIDTH, target_channels)
    return regularizer


def made_up_inputs(
    config: RegularizerConfig, copies: int = 1
) -> tuple[RegularizerInputs, list[Tensor]]:
    """Inputs of a made-up training step, and the tensors gradients may reach.

    Only what ``config`` asks for is there: a target, moments. The decoder is one linear layer.

    Args:
        config: the regularizer's.
        copies: how often each image is in the batch.
    """
    images = synthetic_images(IMAGES, GRID * PATCH).repeat(copies, 1, 1, 1)
    shape = (IMAGES, CHANNELS, GRID, GRID)
    latents = draw(*shape, seed=1).repeat(copies, 1, 1, 1).requires_grad_()
    weight = (0.3 * draw(CHANNELS, 3, PATCH, PATCH, seed=2)).requires_grad_()
    posterior, leaves = Posterior(latents), [latents, weight]
    if type(config).needs_moments:
        leaves.append((0.1 * latents.detach()).requires_grad_())
        posterior = replace(posterior, mean=latents, logvar=leaves[-1])

    def decode(z: Tensor) -> Tensor:
        return F.conv_transpose2d(z, weight, stride=PATCH).sigmoid()

    target = draw(*shape, seed=3).repeat(copies, 1, 1, 1) if type(config).needs_target else None
    inputs = RegularizerInputs(
        images=images,
        reconstruction=decode(latents),
        features=draw(IMAGES, GRID**2, WIDTH, seed=4).repeat(copies, 1, 1),
        posterior=posterior,
        target=target,
        decode=decode,
        distance=F.l1_loss,
        generator=torch.Generator().manual_seed(5),
    )
    return inputs, leaves


def _check_needs(regularizer: Regularizer, config: RegularizerConfig) -> None:
    """With nothing but what the config asks for, the term can be computed."""
    needs = [name for name in ("needs_target", "needs_moments") if getattr(type(config), name)]
    try:
        regularizer(made_up_inputs(config)[0])
    except Exception as error:
        raise AssertionError(
            f"{type(config).__name__} states {' and '.join(needs) or 'no needs'}; given just that, "
            f"the term fails: {type(error).__name__}: {error}"
        ) from error


def _check_one_step(regularizer: Regularizer, config: RegularizerConfig) -> None:
    """One forward and backward pass: a scalar, gradients where they belong, inputs untouched."""
    inputs, leaves = made_up_inputs(config)
    given = (inputs.images, inputs.features, inputs.target, inputs.posterior.latents)
    before = [None if x is None else x.detach().clone() for x in given]
    found = expect_tensor(regularizer(inputs), (), "the term", dtype=None)
    expect(found.requires_grad, "the term sends no gradient anywhere, so it trains nothing")
    gradients = torch.autograd.grad(found, leaves, allow_unused=True)
    reached = [gradient for gradient in gradients if gradient is not None]
    finite = all(bool(gradient.isfinite().all()) for gradient in reached)
    expect(finite, "a gradient of the term is not finite")
    expect(
        any(bool(gradient.any()) for gradient in reached),
        "no gradient of the term reaches the latents or the decoder, so it trains nothing",
    )
    for name, x, old in zip(
        ("images", "features", "target", "latents"), given, before, strict=True
    ):
        same = x is None or (old is not None and torch.equal(x, old))
        expect(same, f"the term changed inputs.{name} in place; other terms look at it too")
