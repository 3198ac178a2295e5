"""The contract of bottlenecks."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from pae_framework.config import BottleneckConfig
from pae_framework.contracts import Bottleneck, Posterior
from pae_framework.promises import map_order_problem, posterior_problem
from pae_framework.testing.expect import (
    expect,
    expect_none,
    expect_tensor,
    global_randomness_untouched,
)
from pae_framework.testing.modules import (
    expect_gradients,
    expect_input_gradient,
    expect_repeatable,
    expect_rows_apart,
    expect_state,
)
from pae_framework.testing.shared_batch import expect_rows_of_the_batch
from pae_framework.testing.synthetic import normal


def check_bottleneck(
    bottleneck: Bottleneck, config: BottleneckConfig, width: int, grid: int
) -> None:
    """Check a bottleneck that was built as ``Bottleneck(config, width, grid)``.

    It has the channels that its config gives; a bottleneck that does not project has the tokens'
    width. Latents are finite, computed from one image alone, and pass gradients. With a generator
    it uses no other randomness, and draws by image; without one it is deterministic. ``invert``
    keeps the latents' shape. The statistics that it measures are in its state dict.

    Raises:
        AssertionError: the component breaks the contract; the message says how.
    """
    expect(isinstance(bottleneck, Bottleneck), f"{bottleneck!r} is no contracts.Bottleneck")
    _check_channels(bottleneck, config, width)
    subject = copy.deepcopy(bottleneck).train()
    if subject.statistics_images:
        subject.measure(normal(8, subject.in_channels, grid, grid, seed=seed) for seed in (1, 2))
    x = normal(3, subject.in_channels, grid, grid, seed=3)
    latents = _check_posterior(subject(x, None), (3, subject.channels, grid, grid))
    expect_gradients(latents, subject, "the bottleneck")

    def extract(x: Tensor) -> Tensor:
        return subject(x, None).latents

    expect_none(map_order_problem(extract, x[:1], grid, "the latents"))
    expect_repeatable(lambda: extract(x), "the bottleneck without a generator")
    expect_rows_apart(extract, x, what="the bottleneck")
    with torch.autocast("cpu", torch.bfloat16):
        _check_posterior(subject(x.bfloat16(), None), tuple(latents.shape))
    _check_randomness(subject, x)
    x.requires_grad_()
    latents = subject(x, torch.Generator().manual_seed(7)).latents
    expect_input_gradient(subject.invert(latents), x, "the latents")
    x = x.detach()
    expect_tensor(subject.invert(latents), tuple(latents.shape), "the output of invert")
    expect_state(
        subject,
        lambda: type(bottleneck)(config, width, grid),
        lambda module: module(x, None).latents,
    )


def _check_channels(bottleneck: Bottleneck, config: BottleneckConfig, width: int) -> None:
    promised, channels = config.latent_channels(width), bottleneck.channels
    expect(
        promised == channels,
        f"config.latent_channels gives {promised}, but the latents have {channels} channels",
    )
    expect(
        bottleneck.projected or bottleneck.in_channels == width,
        f"a bottleneck that is not `projected` takes the {width} channels of the tokens, not "
        f"{bottleneck.in_channels}",
    )


def _check_posterior(posterior: Posterior, shape: tuple[int, ...]) -> Tensor:
    expect_none(posterior_problem(posterior, shape))
    return posterior.latents


def _check_randomness(subject: Bottleneck, x: Tensor) -> None:
    with torch.no_grad(), global_randomness_untouched("the bottleneck, given a generator,"):
        first, again = (subject(x, torch.Generator().manual_seed(7)).latents for _ in range(2))
    expect(torch.equal(first, again), "the same generator must give the same latents")
    expect_rows_of_the_batch(
        lambda rows, generator: subject(x[rows.start : rows.stop], generator).latents,
        len(x),
        "the latents",
    )
