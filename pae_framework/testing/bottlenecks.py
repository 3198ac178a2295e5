"""The contract of bottlenecks."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from pae_framework.config import BottleneckConfig
from pae_framework.contracts import Bottleneck, Posterior
from pae_framework.testing.expect import expect, expect_tensor, global_randomness_untouched
from pae_framework.testing.modules import (
    expect_gradients,
    expect_repeatable,
    expect_rows_apart,
)
from pae_framework.testing.state import expect_state
from pae_framework.testing.synthetic import draw


def check_bottleneck(
    bottleneck: Bottleneck, config: BottleneckConfig, width: int, grid: int
) -> None:
    """Check a bottleneck that was built as ``Bottleneck(config, width, grid)``.

    Its channels are what its config says; where it does not project, they are the width of the
    tokens; latents are finite, of each image alone, and let gradients through; with a generator it
    draws from nothing else, without one it is deterministic; ``invert`` keeps the latents' shape;
    statistics it measures are in its state dict.

    Raises:
        AssertionError: says what the contract is and what was found.
    """
    expect(isinstance(bottleneck, Bottleneck), f"{bottleneck!r} is no contracts.Bottleneck")
    _check_channels(bottleneck, config, width)
    subject = copy.deepcopy(bottleneck).train()
    if subject.statistics_images:
        subject.measure(draw(8, subject.in_channels, grid, grid, seed=seed) for seed in (1, 2))
    x = draw(3, subject.in_channels, grid, grid, seed=3)
    latents = _check_posterior(subject(x, None), (3, subject.channels, grid, grid))
    expect_gradients(latents, subject, "the bottleneck")

    def extract(x: Tensor) -> Tensor:
        return subject(x, None).latents

    expect_repeatable(lambda: extract(x), "the bottleneck without a generator")
    expect_rows_apart(extract, x, what="the latents")
    with torch.autocast("cpu", torch.bfloat16):
        _check_posterior(subject(x.bfloat16(), None), tuple(latents.shape))
    _check_drawing(subject, x)
    _check_gradients(subject, x)
    expect_tensor(subject.invert(latents), tuple(latents.shape), "what invert gives")
    expect_state(
        subject,
        lambda: type(bottleneck)(config, width, grid),
        lambda module: module(x, None).latents,
    )


def _check_channels(bottleneck: Bottleneck, config: BottleneckConfig, width: int) -> None:
    said, found = config.latent_channels(width), bottleneck.channels
    expect(said == found, f"config.latent_channels gives {said}, but the latents have {found}")
    around = (bottleneck.in_channels, bottleneck.channels)
    expect(
        bottleneck.projected or around == (width, width),
        f"it is not `projected`, so it takes and gives the tokens' {width} channels, not {around}",
    )


def _check_posterior(posterior: object, shape: tuple[int, ...]) -> Tensor:
    expect(isinstance(posterior, Posterior), "forward gives no pae_framework.contracts.Posterior")
    assert isinstance(posterior, Posterior)
    moments = (posterior.mean, posterior.logvar)
    expect(
        (moments[0] is None) == (moments[1] is None),
        "a posterior has both a mean and a logvar, or neither",
    )
    for name, moment in zip(("mean", "logvar"), moments, strict=True):
        if moment is not None:
            expect_tensor(moment, shape, f"the {name}", dtype=None)
    return expect_tensor(posterior.latents, shape, "the latents", dtype=None)


def _check_drawing(subject: Bottleneck, x: Tensor) -> None:
    with torch.no_grad(), global_randomness_untouched("the bottleneck, given a generator,"):
        first, again = (subject(x, torch.Generator().manual_seed(7)).latents for _ in range(2))
    expect(torch.equal(first, again), "the same generator gives other latents")


def _check_gradients(subject: Bottleneck, x: Tensor) -> None:
    x = x.clone().requires_grad_()
    latents = subject(x, torch.Generator().manual_seed(7)).latents
    expect(latents.requires_grad, "no gradient flows from the latents to what they are made of")
    loss = (subject.invert(latents) * draw(*latents.shape, seed=8)).sum()
    (gradient,) = torch.autograd.grad(loss, x)
    whole = bool(gradient.isfinite().all() and gradient.flatten(1).any(dim=1).all())
    expect(whole, "the gradient at the bottleneck's input is zero or not finite")
